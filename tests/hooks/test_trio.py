"""httpx and httpx2 under trio, where no asyncio runs."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest
import trio

import spendwatch
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, attributes, has, only

pytestmark = pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)


def test_calls_and_streams_are_recorded_with_their_tasks_tags(module: Any, provider: Loopback, spans: Spans) -> None:
    provider.answers = lambda seen: (
        Answer(chunks=chat_events(), headers=SSE) if b'"stream"' in seen.body else Answer(chunks=[CHAT_BODY])
    )

    async def main() -> None:
        async with module.AsyncClient() as client, trio.open_nursery() as nursery:

            async def one(agent: str) -> None:
                with spendwatch.tags(agent=agent):
                    assert (await client.post(provider.url + PATH, json=ASK)).json() == CHAT
                    async with client.stream("POST", provider.url + PATH, json={**ASK, "stream": True}) as response:
                        assert b"".join([piece async for piece in response.aiter_raw()]) == b"".join(chat_events())

            for n in range(5):
                nursery.start_soon(one, f"a{n}")

    trio.run(main)
    found = [attributes(span) for span in spans()]
    assert sorted(f["spendwatch.tags.agent"] for f in found) == sorted(f"a{n}" for n in range(5) for _ in range(2))
    for each in found:
        has(each, **{"spendwatch.status": "ok", **TOKENS})


def test_a_cancelled_scope_is_recorded_as_left(module: Any, provider: Loopback, spans: Spans) -> None:
    release = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield chat_events()[0]
        release.wait(20)

    provider.answers = lambda seen: Answer(chunks=chunks(), headers=SSE, cut=True)

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with (
                module.AsyncClient() as client,
                client.stream("POST", provider.url + PATH, json={**ASK, "stream": True}) as response,
            ):
                async for _ in response.aiter_raw():
                    scope.cancel()
        assert scope.cancelled_caught

    trio.run(main)
    release.set()
    has(only(spans()), **{"spendwatch.status": "aborted", "gen_ai.response.id": "chatcmpl-stream1"})
