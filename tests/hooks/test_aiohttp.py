"""aiohttp as apps use it: every way to read a response, sessions, middlewares, forms, and readers that stop early."""

import asyncio
import gc
import gzip
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import pytest

import spendwatch
from spendwatch.hooks.exchange import live
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, attributes, has, only

STREAM = b"".join(chat_events(40))
ASK_STREAM = {**ASK, "stream": True}


async def joined(pieces: AsyncIterator[Any]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def by_chunks(response: aiohttp.ClientResponse) -> bytes:
    return b"".join([data async for data, _ in response.content.iter_chunks()])


async def until(response: aiohttp.ClientResponse) -> bytes:
    out = b""
    while piece := await response.content.readuntil(b"\n\n"):
        out += piece
    return out


async def exactly(response: aiohttp.ClientResponse) -> bytes:
    out = b""
    while True:
        try:
            out += await response.content.readexactly(333)
        except asyncio.IncompleteReadError as exc:
            return out + exc.partial


async def nowait(response: aiohttp.ClientResponse) -> bytes:
    await response.content.wait_eof()
    return response.content.read_nowait()


async def any_of_it(response: aiohttp.ClientResponse) -> bytes:
    out = b""
    while piece := await response.content.readany():
        out += piece
    return out


async def text(response: aiohttp.ClientResponse) -> bytes:
    return (await response.text()).encode()


WAYS: dict[str, Callable[[aiohttp.ClientResponse], Awaitable[bytes]]] = {
    "read": lambda r: r.read(),
    "text": text,
    "content.read": lambda r: r.content.read(),
    "lines": lambda r: joined(r.content),
    "iter_any": lambda r: joined(r.content.iter_any()),
    "iter_chunked": lambda r: joined(r.content.iter_chunked(100)),
    "iter_chunks": by_chunks,
    "readuntil": until,
    "readexactly": exactly,
    "read_nowait": nowait,
    "readany": any_of_it,
}


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_read_a_response_gives_its_bytes_and_one_call(
    way: str, framing: str, provider: Loopback, spans: Spans
) -> None:
    randomness = random.Random(f"{way} {framing}")
    pieces, at = [], 0
    while at < len(STREAM):
        size = randomness.choice((1, 2, 60, 900))
        pieces.append(STREAM[at : at + size])
        at += size
    provider.always(*pieces, headers=SSE, framing=framing)

    async def main() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(provider.url + PATH, json=ASK_STREAM) as response,
        ):
            assert type(response) is aiohttp.ClientResponse
            assert isinstance(response.content, aiohttp.StreamReader)
            assert await WAYS[way](response) == STREAM
            assert response.content.at_eof()
            assert response.content.total_bytes == len(STREAM)
            assert response.content.exception() is None

    asyncio.run(main())
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})
    assert not live


def test_connections_are_used_again_as_without_us(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(5):
                async with session.post(provider.url + PATH, json=ASK) as response:
                    assert await response.json() == CHAT
            assert session.connector is not None
            assert sum(map(len, session.connector._conns.values())) == 1

    asyncio.run(main())
    assert len(spans()) == 5


def test_a_reader_that_stops_early_is_recorded_as_left(provider: Loopback, spans: Spans) -> None:
    provider.always(*chat_events(50, done=False), headers=SSE)

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            response = await session.post(provider.url + PATH, json=ASK_STREAM)
            async with response:
                await response.content.readline()
            has(only(spans()), **{"spendwatch.status": "aborted", "gen_ai.response.id": "chatcmpl-stream1"})

    asyncio.run(main())
    assert len(spans()) == 1


def test_a_session_closed_under_a_stream_ends_it(provider: Loopback, spans: Spans) -> None:
    provider.always(*chat_events(5, done=False, usage=False), headers=SSE, cut=True)

    async def main() -> None:
        session = aiohttp.ClientSession()
        response = await session.post(provider.url + PATH, json=ASK_STREAM)
        await response.content.readline()
        await session.close()
        with pytest.raises(RuntimeError):
            await response.content.read()
        response.close()

    asyncio.run(main())
    has(only(spans()), **{"gen_ai.response.id": "chatcmpl-stream1"})
    assert not live


def test_a_status_that_raises_leaves_one_error(provider: Loopback, spans: Spans) -> None:
    provider.always(b'{"error":{"type":"rate_limit_error"}}', status=429)

    async def main() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            with pytest.raises(aiohttp.ClientResponseError) as raised:
                await session.post(provider.url + PATH, json=ASK)
            assert raised.value.status == 429

    asyncio.run(main())
    has(only(spans()), **{"spendwatch.status": "error", "http.response.status_code": 429})


@pytest.mark.parametrize("decompress", [True, False])
def test_a_compressed_body_is_read_whoever_decodes_it(decompress: bool, provider: Loopback, spans: Spans) -> None:
    packed = gzip.compress(STREAM)
    provider.always(packed[:20], packed[20:], headers={**SSE, "content-encoding": "gzip"})

    async def main() -> None:
        async with (
            aiohttp.ClientSession(auto_decompress=decompress) as session,
            session.post(provider.url + PATH, json=ASK_STREAM) as response,
        ):
            assert await response.read() == (STREAM if decompress else packed)

    asyncio.run(main())
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})


def test_a_body_in_any_shape_is_sent_as_it_is(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    plain = json.dumps(ASK).encode()

    async def generated() -> AsyncIterator[bytes]:
        yield plain

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for data in (plain, plain.decode(), bytearray(plain), generated()):
                async with session.post(provider.url + PATH, data=data) as response:
                    await response.read()

    asyncio.run(main())
    assert [seen.body for seen in provider.seen] == [plain] * 4
    models = [attributes(span).get("gen_ai.request.model") for span in spans()]
    # What is generated can't be seen without taking it.
    assert models == ["gpt-4o-mini"] * 3 + [None]


def test_a_form_is_read_for_its_short_fields(provider: Loopback, spans: Spans) -> None:
    provider.always(b'{"text":"hm","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}')

    async def main() -> None:
        form = aiohttp.FormData()
        form.add_field("model", "gpt-4o-transcribe")
        form.add_field("file", b"RIFF" * 1000, filename="a.wav")
        async with (
            aiohttp.ClientSession() as session,
            session.post(provider.url + "/v1/audio/transcriptions", data=form) as response,
        ):
            await response.read()

    asyncio.run(main())
    assert b"RIFF" in provider.seen[0].body
    has(only(spans()), **{"gen_ai.request.model": "gpt-4o-transcribe", "gen_ai.usage.output_tokens": 45})


def test_a_middlewares_retry_is_a_call_of_its_own(provider: Loopback, spans: Spans) -> None:
    replies = iter([Answer(chunks=[b"{}"], status=500), Answer(chunks=[CHAT_BODY])])
    provider.answers = lambda seen: next(replies)

    async def retry(request: Any, handler: Any) -> Any:
        response = await handler(request)
        if response.status == 500:
            response.release()
            response = await handler(request)
        return response

    async def main() -> None:
        async with (
            aiohttp.ClientSession(middlewares=(retry,)) as session,
            session.post(provider.url + PATH, json=ASK) as response,
        ):
            assert await response.json() == CHAT

    asyncio.run(main())
    gc.collect()
    assert sorted(attributes(span)["http.response.status_code"] for span in spans()) == [200, 500]


def test_a_transport_of_httpx_that_sends_by_aiohttp_counts_once(provider: Loopback, spans: Spans) -> None:
    provider.always(*chat_events(), headers=SSE)

    class Body(httpx.AsyncByteStream):
        def __init__(self, response: aiohttp.ClientResponse) -> None:
            self.response = response

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self.response.content.iter_any():
                yield piece

        async def aclose(self) -> None:
            self.response.close()

    class Transport(httpx.AsyncBaseTransport):
        def __init__(self, session: aiohttp.ClientSession) -> None:
            self.session = session

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            url = provider.url + request.url.path
            response = await self.session.post(url, data=request.content, headers=dict(request.headers))
            return httpx.Response(response.status, headers=dict(response.headers), stream=Body(response))

    async def main() -> None:
        async with aiohttp.ClientSession() as session, httpx.AsyncClient(transport=Transport(session)) as client:
            response = await client.post("https://api.openai.com" + PATH, json=ASK_STREAM)
            assert response.content == b"".join(chat_events())

    asyncio.run(main())
    has(only(spans()), **{"server.address": "api.openai.com", **TOKENS})


def test_a_total_timeout_within_a_stream_is_the_apps_and_recorded(provider: Loopback, spans: Spans) -> None:
    def chunks() -> Any:
        yield chat_events()[0]
        asyncio.run(asyncio.sleep(1))

    provider.answers = lambda seen: Answer(chunks=chunks(), headers=SSE, cut=True)

    async def main() -> None:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session,
            session.post(provider.url + PATH, json=ASK_STREAM) as response,
        ):
            with pytest.raises(TimeoutError):
                await response.read()

    asyncio.run(main())
    has(
        only(spans()),
        **{"spendwatch.status": "error", "error.type": "TimeoutError", "gen_ai.response.id": "chatcmpl-stream1"},
    )


def test_tags_reach_calls_made_in_tasks(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)

    async def main() -> None:
        async with aiohttp.ClientSession() as session:

            async def one(agent: str) -> None:
                with spendwatch.tags(agent=agent):
                    async with session.post(provider.url + PATH, json=ASK) as response:
                        await response.read()

            await asyncio.gather(*(one(f"a{n}") for n in range(8)))

    asyncio.run(main())
    assert sorted(attributes(span)["spendwatch.tags.agent"] for span in spans()) == [f"a{n}" for n in range(8)]
