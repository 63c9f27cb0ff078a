"""OpenLIT: plain, streamed, embeddings, Claude (whose input it counts without the cache), an error."""

import anthropic
import openai
import openlit
from common import PROVIDER, SYSTEM, USER, swallowing
from opentelemetry import trace

openlit.init(otlp_endpoint=PROVIDER, application_name="openlit", disable_metrics=True)
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
client = openai.OpenAI(max_retries=0)
claude = anthropic.Anthropic(max_retries=0)
client.chat.completions.create(model="gpt-4o-mini", messages=messages)
for _ in client.chat.completions.create(
    model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
):
    pass
client.embeddings.create(model="text-embedding-3-small", input=USER)
claude.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=messages[1:])
with swallowing():
    client.chat.completions.create(model="busy-model", messages=messages)
trace.get_tracer_provider().force_flush()
