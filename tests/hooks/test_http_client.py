"""http.client by itself, as libraries use it that want no other."""

import gc
import http.client
import io
import json
import random
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

import spendwatch
from spendwatch.hooks.exchange import live
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, attributes, has, only

STREAM = b"".join(chat_events(40))
BODY = json.dumps(ASK).encode()


def read_into(response: http.client.HTTPResponse) -> bytes:
    out, buffer = b"", bytearray(700)
    while count := response.readinto(buffer):
        out += buffer[:count]
    return out


def peeked(response: http.client.HTTPResponse) -> bytes:
    out = b""
    while len(out) < len(STREAM) // 2:
        assert response.peek(10)
        out += response.read1(100)
    return out + response.read()


WAYS: dict[str, Callable[[http.client.HTTPResponse], bytes]] = {
    "read": lambda r: r.read(),
    "read(n)": lambda r: b"".join(iter(lambda: r.read(333), b"")),
    "read1": lambda r: b"".join(iter(lambda: r.read1(), b"")),
    "readinto": read_into,
    "readline": lambda r: b"".join(iter(lambda: r.readline(), b"")),
    "lines": lambda r: b"".join(r),
    "peek": peeked,
    "buffered": lambda r: io.BufferedReader(r).read(),
    "text": lambda r: io.TextIOWrapper(r, newline="").read().encode(),
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
    connection = http.client.HTTPConnection("127.0.0.1", provider.port)
    connection.request("POST", PATH, json.dumps({**ASK, "stream": True}))
    assert WAYS[way](connection.getresponse()) == STREAM
    connection.close()
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})
    assert not live


def test_a_connection_is_used_again_and_its_socket_is_the_same(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    connection = http.client.HTTPConnection("127.0.0.1", provider.port)
    sockets = set()
    for _ in range(3):
        connection.request("POST", PATH, body=BODY, headers={"content-type": "application/json"})
        sockets.add(connection.sock)
        response = connection.getresponse()
        assert type(response) is http.client.HTTPResponse
        assert json.loads(response.read()) == CHAT
    assert len(sockets) == 1
    assert len(spans()) == 3
    connection.close()


def test_a_request_whose_reply_nobody_asks_for_is_recorded_once(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    connection = http.client.HTTPConnection("127.0.0.1", provider.port)
    connection.request("POST", PATH, BODY)
    connection.close()
    assert len(live) == 1
    del connection
    gc.collect()
    has(only(spans()), **{"spendwatch.status": "aborted", "gen_ai.request.model": "gpt-4o-mini"})


def test_a_connection_that_is_dropped_before_a_reply_is_the_apps_error(provider: Loopback, spans: Spans) -> None:
    provider.answers = lambda seen: Answer(drop=True)
    connection = http.client.HTTPConnection("127.0.0.1", provider.port)
    connection.request("POST", PATH, BODY)
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    has(only(spans()), **{"spendwatch.status": "error", "error.type": "RemoteDisconnected"})


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_is_cut_short_is_an_error_that_keeps_what_came(
    framing: str, provider: Loopback, spans: Spans
) -> None:
    provider.always(*chat_events(done=False, usage=False), headers=SSE, framing=framing, cut=True)
    connection = http.client.HTTPConnection("127.0.0.1", provider.port)
    connection.request("POST", PATH, json.dumps({**ASK, "stream": True}))
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()
    has(
        only(spans()),
        **{
            "spendwatch.status": "error",
            "error.type": "IncompleteRead",
            "gen_ai.response.id": "chatcmpl-stream1",
            "gen_ai.usage.output_tokens": None,
        },
    )


def test_chunks_with_extensions_and_trailers_are_understood(provider: Loopback, spans: Spans) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    half = len(STREAM) // 2
    body = b"%x;name=value\r\n%s\r\n%X\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (
        half,
        STREAM[:half],
        len(STREAM) - half,
        STREAM[half:],
    )

    class Socket:
        """A connection whose other end has said everything already."""

        def sendall(self, data: Any) -> None:
            """It doesn't listen."""

        def makefile(self, mode: str) -> io.BufferedReader:
            return io.BufferedReader(io.BytesIO(head + body))  # type: ignore[arg-type]

        def close(self) -> None:
            """Nothing is open."""

    for size in (1, 7, 5000, None):
        connection = http.client.HTTPConnection("api.openai.com")
        connection.sock = Socket()  # type: ignore[assignment]
        connection.request("POST", PATH, json.dumps({**ASK, "stream": True}))
        response = connection.getresponse()
        got = response.read() if size is None else b"".join(iter(lambda: response.read(size), b""))  # noqa: B023
        assert got == STREAM
    found = [attributes(span) for span in spans()]
    assert len(found) == 4
    for each in found:
        has(each, **{"spendwatch.status": "ok", "gen_ai.provider.name": "openai", **TOKENS})


def test_an_error_of_urllib_is_its_own_and_still_the_reply(provider: Loopback, spans: Spans) -> None:
    provider.always(b'{"error":{"type":"rate_limit_error"}}', status=429)
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(provider.url + PATH, BODY)
    assert json.load(raised.value)["error"]["type"] == "rate_limit_error"
    raised.value.close()
    has(only(spans()), **{"error.type": "rate_limit_error", "http.response.status_code": 429})


def test_our_own_exporter_is_not_recorded(provider: Loopback) -> None:
    provider.answers = lambda seen: Answer(chunks=[CHAT_BODY if seen.target == PATH else b""])
    # To a path that looks like an LLM's, which only the OTLP receiver's own address can have.
    spendwatch.instrument(endpoint=provider.url + PATH, token="swt_x")
    urllib.request.urlopen(provider.url + PATH, BODY).read()
    assert spendwatch.flush()
    assert not live
    assert [seen.target for seen in provider.seen] == [PATH, PATH + "/v1/traces"]
