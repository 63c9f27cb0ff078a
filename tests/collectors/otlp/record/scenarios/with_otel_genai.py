"""opentelemetry-instrumentation-openai-v2: the conventions' own package, with message content captured."""

import openai
from common import SYSTEM, USER, exporter_provider, swallowing
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

provider = exporter_provider("otel-genai")
OpenAIInstrumentor().instrument(tracer_provider=provider)
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
client = openai.OpenAI(max_retries=0)
client.chat.completions.create(model="gpt-4o-mini", messages=messages)
for _ in client.chat.completions.create(
    model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
):
    pass
client.responses.create(model="gpt-4o-mini", input=USER)
client.embeddings.create(model="text-embedding-3-small", input=USER)
with swallowing():
    client.chat.completions.create(model="busy-model", messages=messages)
provider.shutdown()
