"""Langfuse's SDK: its OpenAI wrapper, and generations written by hand inside observed functions."""

import os

os.environ["LANGFUSE_PUBLIC_KEY"] = "pk-lf-test"
os.environ["LANGFUSE_SECRET_KEY"] = "sk-lf-test"
os.environ["LANGFUSE_BASE_URL"] = os.environ["PROVIDER"]
os.environ["LANGFUSE_HOST"] = os.environ["PROVIDER"]

from common import SYSTEM, USER, swallowing
from langfuse import get_client, observe, propagate_attributes
from langfuse.openai import openai

langfuse = get_client()
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
client = openai.OpenAI(max_retries=0)


@observe(as_type="tool")
def weather(city: str) -> str:
    return f"sunny in {city}"


@observe(as_type="agent")
def forecaster(question: str) -> str:
    client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    return weather(question)


@observe(as_type="generation")
def by_hand(question: str) -> str:
    # As Langfuse's documentation shows it for providers without an integration: "input" without the cached tokens.
    langfuse.update_current_generation(
        model="claude-sonnet-4-5",
        usage_details={
            "input": 100, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300, "output": 50,
        },
        cost_details={"input": 0.0015, "output": 0.00075, "total": 0.00225},
    )  # fmt: skip
    return question


with propagate_attributes(session_id="session-1", user_id="user-1", tags=["recording"]):
    forecaster(USER)
    for _ in client.chat.completions.create(
        model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        pass
    client.responses.create(model="gpt-4o-mini", input=USER)
    client.embeddings.create(model="text-embedding-3-small", input=USER)
    by_hand(USER)
with swallowing():
    client.chat.completions.create(model="busy-model", messages=messages)
langfuse.flush()
