"""openinference-instrumentation-langchain: a chain, a stream, Claude."""

from common import SYSTEM, USER, exporter_provider, swallowing
from langchain_anthropic import ChatAnthropic
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor

provider = exporter_provider("openinference-langchain")
LangChainInstrumentor().instrument(tracer_provider=provider)
prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("user", "{question}")])
(prompt | ChatOpenAI(model="gpt-4o-mini", max_retries=0)).invoke({"question": USER})
for _ in ChatOpenAI(model="gpt-4o-mini", stream_usage=True).stream(USER):
    pass
ChatAnthropic(model="claude-sonnet-4-5").invoke(USER)
with swallowing():
    ChatOpenAI(model="busy-model", max_retries=0).invoke(USER)
provider.shutdown()
