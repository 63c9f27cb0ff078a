"""openinference-instrumentation-openai and -anthropic: plain, streamed, a chain around, embeddings, an error."""

import anthropic
import openai
from common import SYSTEM, USER, exporter_provider, swallowing
from openinference.instrumentation import using_attributes
from openinference.instrumentation.anthropic import AnthropicInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = exporter_provider("openinference")
OpenAIInstrumentor().instrument(tracer_provider=provider)
AnthropicInstrumentor().instrument(tracer_provider=provider)
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
client = openai.OpenAI(max_retries=0)
claude = anthropic.Anthropic(max_retries=0)
tracer = provider.get_tracer("app")

with using_attributes(session_id="session-1", user_id="user-1"):
    with tracer.start_as_current_span("run", attributes={"openinference.span.kind": "CHAIN", "input.value": USER}):
        client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    for _ in client.chat.completions.create(
        model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        pass
    client.responses.create(model="gpt-4o-mini", input=USER)
    client.embeddings.create(model="text-embedding-3-small", input=USER)
    claude.messages.create(model="claude-sonnet-5", max_tokens=100, system=SYSTEM, messages=messages[1:])
    with claude.messages.stream(model="claude-sonnet-5", max_tokens=100, messages=messages[1:]) as stream:
        stream.get_final_message()
with swallowing():
    client.chat.completions.create(model="busy-model", messages=messages)
provider.shutdown()
