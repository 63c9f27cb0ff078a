"""The real google-genai SDK: its sync client sends by httpx2, its async client by aiohttp."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import SSE
from tests.hooks.test_clients import has, only

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MODEL = "gemini-2.5-flash"
USAGE = {
    "promptTokenCount": 412,
    "cachedContentTokenCount": 300,
    "candidatesTokenCount": 31,
    "thoughtsTokenCount": 17,
    "totalTokenCount": 460,
}
TOKENS = {
    "gen_ai.usage.input_tokens": 412,
    "gen_ai.usage.output_tokens": 48,
    "gen_ai.usage.cache_read.input_tokens": 300,
    "gen_ai.usage.reasoning.output_tokens": 17,
    "gen_ai.response.id": "resp-7",
    "gen_ai.request.model": MODEL,
    "spendwatch.status": "ok",
}


def part(text: str, **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}]}
    return {
        "candidates": [{"content": content, "index": 0, **more}],
        "modelVersion": MODEL,
        "responseId": "resp-7",
    }


WHOLE = {**part("Paris.", finishReason="STOP"), "usageMetadata": USAGE}
EVENTS = [part("Pa"), part("ris"), {**part(".", finishReason="STOP"), "usageMetadata": USAGE}]


def answers(seen: Seen) -> Answer:
    if ":streamGenerateContent" in seen.target:
        return Answer(chunks=[b"data: " + json.dumps(e).encode() + b"\r\n\r\n" for e in EVENTS], headers=SSE)
    return Answer(chunks=[json.dumps(WHOLE).encode()])


@pytest.fixture
def client(provider: Loopback) -> genai.Client:
    provider.answers = answers
    return genai.Client(api_key="AIza-x", http_options=types.HttpOptions(base_url=provider.url))


def plain(client: genai.Client) -> None:
    reply = client.models.generate_content(model=MODEL, contents="Capital of France?")
    assert reply.text == "Paris."
    client.close()


def stream(client: genai.Client) -> None:
    chunks = client.models.generate_content_stream(model=MODEL, contents="Capital of France?")
    assert "".join(chunk.text or "" for chunk in chunks) == "Paris."
    client.close()


def async_plain(client: genai.Client) -> None:
    async def main() -> None:
        reply = await client.aio.models.generate_content(model=MODEL, contents="Capital of France?")
        assert reply.text == "Paris."
        await client.aio.aclose()

    asyncio.run(main())


def async_stream(client: genai.Client) -> None:
    async def main() -> None:
        chunks = await client.aio.models.generate_content_stream(model=MODEL, contents="Capital of France?")
        assert "".join([chunk.text or "" async for chunk in chunks]) == "Paris."
        await client.aio.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("way", [plain, stream, async_plain, async_stream], ids=lambda way: way.__name__)
def test_each_way_to_call_is_one_complete_span(
    way: Callable[[genai.Client], None], client: genai.Client, spans: Spans
) -> None:
    way(client)
    found = only(spans())
    has(found, **TOKENS)
    assert ("gen_ai.request.stream" in found) is ("stream" in way.__name__)


def test_an_error_is_the_sdks_own(provider: Loopback, client: genai.Client, spans: Spans) -> None:
    body = {"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}
    provider.answers = lambda seen: Answer(chunks=[json.dumps(body).encode()], status=429)

    async def main() -> None:
        with pytest.raises(errors.ClientError) as raised:
            await client.aio.models.generate_content(model=MODEL, contents="Capital of France?")
        assert raised.value.status == "RESOURCE_EXHAUSTED"
        await client.aio.aclose()

    asyncio.run(main())
    has(only(spans()), **{"spendwatch.status": "error", "http.response.status_code": 429})


def test_the_async_client_is_on_aiohttp(client: genai.Client, spans: Spans) -> None:
    # What the tests above are for: should this change, they no longer say anything of aiohttp.
    assert client._api_client._use_aiohttp()
