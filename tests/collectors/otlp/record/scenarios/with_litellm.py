"""LiteLLM's "otel" callback: plain, cached (the second of two equal calls is served from its cache), failing."""

import asyncio
import os

os.environ["OTEL_EXPORTER"] = "otlp_http"
os.environ["OTEL_ENDPOINT"] = os.environ["PROVIDER"] + "/v1/traces"
os.environ["OTEL_SERVICE_NAME"] = "litellm"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from common import PROVIDER, SYSTEM, USER, swallowing
from litellm.caching.caching import Cache

litellm.callbacks = ["otel"]
litellm.cache = Cache()
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
how = {"api_key": "sk-test", "max_retries": 0}


async def main() -> None:
    openai = {**how, "model": "openai/gpt-4o-mini", "api_base": PROVIDER + "/v1"}
    await litellm.acompletion(**openai, messages=messages, caching=True, metadata={"session_id": "session-1"})
    await asyncio.sleep(1)
    await litellm.acompletion(**openai, messages=messages, caching=True)
    async for _ in await litellm.acompletion(
        **openai, messages=messages, stream=True, stream_options={"include_usage": True}, no_cache=True, user="user-1"
    ):
        pass
    await litellm.acompletion(
        **how, model="anthropic/claude-sonnet-4-5", api_base=PROVIDER, messages=messages, max_tokens=100
    )
    await litellm.aembedding(**{**openai, "model": "openai/text-embedding-3-small"}, input=[USER])
    with swallowing():
        await litellm.acompletion(**{**openai, "model": "openai/busy-model"}, messages=messages)
    await asyncio.sleep(2)

    # Its provider is flushed when the process ends.


asyncio.run(main())
