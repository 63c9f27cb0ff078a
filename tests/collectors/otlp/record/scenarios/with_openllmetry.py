"""traceloop-sdk with OpenLLMetry's OpenAI and Anthropic instrumentations: a workflow with a task, and calls alone."""

import anthropic
import openai
from common import PROVIDER, SYSTEM, USER, swallowing
from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import agent, task, tool, workflow

Traceloop.init(app_name="openllmetry", api_endpoint=PROVIDER, disable_batch=True, telemetry_enabled=False)
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
client = openai.OpenAI(max_retries=0)
claude = anthropic.Anthropic(max_retries=0)


@tool(name="weather")
def weather(city: str) -> str:
    return f"sunny in {city}"


@task(name="ask")
def ask(question: str) -> str:
    client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    return weather(USER)


@agent(name="forecaster")
def forecaster(question: str) -> str:
    return ask(question)


@workflow(name="triage")
def triage(question: str) -> str:
    Traceloop.set_association_properties({"user_id": "user-1", "session_id": "session-1"})
    return forecaster(question)


triage(USER)
for _ in client.chat.completions.create(
    model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
):
    pass
client.responses.create(model="gpt-4o-mini", input=USER)
client.embeddings.create(model="text-embedding-3-small", input=USER)
claude.messages.create(model="claude-sonnet-5", max_tokens=100, system=SYSTEM, messages=messages[1:])
for _ in claude.messages.create(model="claude-sonnet-5", max_tokens=100, messages=messages[1:], stream=True):
    pass
with swallowing():
    client.chat.completions.create(model="busy-model", messages=messages)
