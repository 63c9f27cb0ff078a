"""Logfire's own instrumentation of the OpenAI and Anthropic SDKs (no agent framework)."""

import os

os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = os.environ["PROVIDER"] + "/v1/traces"

import anthropic
import logfire
import openai
from common import SYSTEM, USER, swallowing

logfire.configure(send_to_logfire=False, service_name="logfire", console=False, environment="recording")
logfire.instrument_openai()
logfire.instrument_anthropic()
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
client = openai.OpenAI(max_retries=0)
claude = anthropic.Anthropic(max_retries=0)
client.chat.completions.create(model="gpt-4o-mini", messages=messages)
for _ in client.chat.completions.create(
    model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
):
    pass
client.responses.create(model="gpt-4o-mini", input=USER)
client.embeddings.create(model="text-embedding-3-small", input=USER)
claude.messages.create(model="claude-sonnet-4-5", max_tokens=100, system=SYSTEM, messages=messages[1:])
with claude.messages.stream(model="claude-sonnet-4-5", max_tokens=100, messages=messages[1:]) as stream:
    stream.get_final_message()
with swallowing():
    client.chat.completions.create(model="busy-model", messages=messages)
logfire.force_flush()
