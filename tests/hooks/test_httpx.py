"""What httpx and httpx2 have beside what every client has: transports of all kinds under a client."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.hooks.clients import HTTPX_KINDS, Client, Kind
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Loopback
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, PATH
from tests.hooks.test_clients import TOKENS, has, only

pytestmark = pytest.mark.parametrize("kind", HTTPX_KINDS, ids=str)


def test_a_double_in_place_of_the_transport_sees_and_gives_the_same(kind: Kind, spans: Spans) -> None:
    module = kind.module
    requests: list[Any] = []

    def handler(request: Any) -> Any:
        requests.append(request)
        return module.Response(200, json=CHAT, headers={"x-mine": "1"})

    def body(client: Client) -> Iterator[Any]:
        response = yield client.post("https://api.openai.com" + PATH, json=ASK)
        assert response.json() == CHAT
        assert response.headers["x-mine"] == "1"

    kind.run(body, transport=kind.transport(handler))
    assert type(requests[0]) is module.Request
    has(
        only(spans()),
        **{"gen_ai.provider.name": "openai", "server.address": "api.openai.com", "server.port": 443, **TOKENS},
    )


def test_a_reply_that_a_caching_transport_kept_is_no_call(kind: Kind, spans: Spans) -> None:
    module = kind.module

    def handler(request: Any) -> Any:
        return module.Response(200, json=CHAT, extensions={"hishel_from_cache": True})

    kind.run(lambda c: (yield c.post("https://api.openai.com" + PATH, json=ASK)), transport=kind.transport(handler))
    assert spans() == []


def test_a_transport_for_one_host_only_is_seen_too(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    transport = kind.module.AsyncHTTPTransport() if kind.is_async else kind.module.HTTPTransport()
    kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK)), mounts={"all://127.0.0.1": transport})
    has(only(spans()), **TOKENS)


def test_a_client_inside_a_client_counts_once(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    module = kind.module

    class Sync(module.BaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            with module.Client() as inner:
                return module.Response(200, content=inner.post(provider.url + PATH, json=ASK).content)

    class Async(module.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            async with module.AsyncClient() as inner:
                return module.Response(200, content=(await inner.post(provider.url + PATH, json=ASK)).content)

    kind.run(
        lambda c: (yield c.post("https://api.openai.com" + PATH, json=ASK)),
        transport=Async() if kind.is_async else Sync(),
    )
    has(only(spans()), **{"server.address": "api.openai.com", **TOKENS})
