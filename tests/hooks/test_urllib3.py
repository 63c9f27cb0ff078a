"""requests and urllib3 as apps use them: sessions, adapters, retries, pools, and every way to read a response."""

import asyncio
import gc
import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import urllib3
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

import spendwatch
from spendwatch.hooks.exchange import live
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, attributes, has, only

STREAM = b"".join(chat_events(40))
ASK_STREAM = {**ASK, "stream": True}


def read_by_lines(response: requests.Response) -> bytes:
    return b"".join(line + b"\n" for line in response.iter_lines(delimiter=b"\n"))[:-1]


def read_into(response: requests.Response) -> bytes:
    out, buffer = b"", bytearray(700)
    while count := response.raw.readinto(buffer):
        out += buffer[:count]
    return out


def copied(response: requests.Response) -> bytes:
    out = io.BytesIO()
    shutil.copyfileobj(response.raw, out)
    return out.getvalue()


WAYS: dict[str, Callable[[requests.Response], bytes]] = {
    "content": lambda r: r.content,
    "text": lambda r: r.text.encode(),
    "iter_content(1)": lambda r: b"".join(r.iter_content(1)),
    "iter_content(None)": lambda r: b"".join(r.iter_content(None)),
    "iter_lines": read_by_lines,
    "raw.read": lambda r: r.raw.read(),
    "raw.read(n)": lambda r: b"".join(iter(lambda: r.raw.read(333), b"")),
    "raw.read1": lambda r: b"".join(iter(lambda: r.raw.read1(), b"")),
    "raw.stream": lambda r: b"".join(r.raw.stream(50)),
    "raw.data": lambda r: r.raw.data,
    "raw.readinto": read_into,
    "buffered": lambda r: io.BufferedReader(r.raw).read(),
    "copyfileobj": copied,
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
    response = requests.post(provider.url + PATH, json=ASK_STREAM, stream=True, timeout=20)
    assert WAYS[way](response) == STREAM
    response.close()
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})
    assert not live


def test_the_objects_are_of_the_types_the_app_knows(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY, framing="length")
    response = requests.post(provider.url + PATH, json=ASK, timeout=20)
    assert type(response) is requests.Response
    assert type(response.raw) is urllib3.HTTPResponse
    assert pickle.loads(pickle.dumps(response)).json() == CHAT
    assert urllib3.request("POST", provider.url + PATH, json=ASK).json() == CHAT
    assert len(spans()) == 2


def test_connections_are_used_again_as_without_us(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    with requests.Session() as session:
        for _ in range(5):
            session.post(provider.url + PATH, json=ASK)
        [pool] = session.get_adapter(provider.url).poolmanager.pools._container.values()
        assert (pool.num_connections, pool.num_requests) == (1, 5)
        assert pool.pool.qsize() == 10
    assert len(spans()) == 5


def test_each_attempt_of_a_retrying_adapter_is_a_call_of_its_own(provider: Loopback, spans: Spans) -> None:
    replies = iter(
        [
            Answer(chunks=[b'{"error":{"type":"server_error"}}'], status=503),
            Answer(drop=True),
            Answer(status=307, headers={"location": "/eu" + PATH}),
            Answer(chunks=[CHAT_BODY]),
        ]
    )
    provider.answers = lambda seen: next(replies)
    retry = Retry(total=5, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        assert session.post(provider.url + PATH, json=ASK).json() == CHAT
    found = [attributes(span) for span in spans()]
    assert [f["spendwatch.status"] for f in found] == ["error", "error", "ok"]
    assert [f.get("http.response.status_code") for f in found] == [503, None, 200]


def test_an_adapter_that_changes_the_request_is_seen_as_it_sends(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)

    class Elsewhere(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            request.url = provider.url + PATH
            return super().send(request, *args, **options)

    with requests.Session() as session:
        session.mount("llm://", Elsewhere())
        assert session.post("llm://gateway/anything", json=ASK).json() == CHAT
    has(only(spans()), **{"server.port": provider.port, **TOKENS})


def test_an_adapter_without_a_wire_is_left_alone(spans: Spans) -> None:
    class Double(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            response = requests.Response()
            response.status_code, response._content, response.request = 200, CHAT_BODY, request
            return response

    with requests.Session() as session:
        session.mount("https://", Double())
        assert session.post("https://api.openai.com" + PATH, json=ASK).json() == CHAT
    assert spans() == []


def test_a_response_left_in_its_with_block_is_aborted_and_its_connection_closed(
    provider: Loopback, spans: Spans
) -> None:
    provider.always(*chat_events(50, done=False), headers=SSE)
    with requests.Session() as session:
        with session.post(provider.url + PATH, json=ASK_STREAM, stream=True) as response:
            next(response.iter_lines())
        has(only(spans()), **{"spendwatch.status": "aborted", "gen_ai.response.id": "chatcmpl-stream1"})
        provider.always(CHAT_BODY)
        assert session.post(provider.url + PATH, json=ASK).json() == CHAT


def test_a_drained_response_is_complete(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    pool = urllib3.PoolManager()
    response = pool.request("POST", provider.url + PATH, json=ASK, preload_content=False)
    response.drain_conn()
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})
    response.release_conn()
    pool.clear()


def test_a_released_and_forgotten_response_is_recorded_once(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    pool = urllib3.PoolManager()
    pool.request("POST", provider.url + PATH, json=ASK, preload_content=False).release_conn()
    pool.clear()
    gc.collect()
    has(only(spans()), **{"spendwatch.status": "aborted"})
    assert not live


def test_a_body_from_a_text_a_file_and_a_form_is_sent_as_it_is(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    text = json.dumps(ASK)
    requests.post(provider.url + PATH, data=text, timeout=20)
    requests.post(provider.url + PATH, data=io.BytesIO(text.encode()), timeout=20)
    form = {"model": (None, "gpt-4o-transcribe"), "file": ("a.wav", b"RIFF")}
    requests.post(provider.url + "/v1/audio/transcriptions", files=form, timeout=20)
    assert [seen.body == text.encode() for seen in provider.seen] == [True, True, False]
    assert b"RIFF" in provider.seen[2].body
    assert [attributes(s)["gen_ai.request.model"] for s in spans()] == ["gpt-4o-mini"] * 2 + ["gpt-4o-transcribe"]


@pytest.mark.parametrize("theirs_first", [True, False])
def test_opentelemetrys_own_instrumentation_gives_its_span_and_we_ours(theirs_first: bool, provider: Loopback) -> None:
    provider.always(CHAT_BODY)
    traces, exporter = InMemorySpanExporter(), InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(traces))
    instrumentor = RequestsInstrumentor()
    try:
        if theirs_first:
            instrumentor.instrument(tracer_provider=app)
        spendwatch.instrument(span_exporter=exporter)
        if not theirs_first:
            instrumentor.instrument(tracer_provider=app)
        assert requests.post(provider.url + PATH, json=ASK, timeout=20).json() == CHAT
    finally:
        instrumentor.uninstrument()
    spendwatch.flush()
    [http_span] = traces.get_finished_spans()
    [call] = exporter.get_finished_spans()
    assert http_span.context is not None
    assert call.parent is not None
    assert call.parent.span_id == http_span.context.span_id
    assert "traceparent" in provider.seen[0].headers


def test_no_header_of_ours_goes_to_a_provider(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    requests.post(provider.url + PATH, json=ASK, timeout=20)
    spendwatch.uninstrument()
    requests.post(provider.url + PATH, json=ASK, timeout=20)
    assert provider.seen[0].headers == provider.seen[1].headers


def test_a_transport_of_httpx_that_sends_by_requests_counts_once(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)

    class Transport(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            url = provider.url + request.url.path
            response = requests.post(url, data=request.content, headers=dict(request.headers), timeout=20)
            return httpx.Response(response.status_code, content=response.content)

    with httpx.Client(transport=Transport()) as client:
        client.post("https://api.openai.com" + PATH, json=ASK)
    has(only(spans()), **{"server.address": "api.openai.com", **TOKENS})


def test_calls_of_threads_are_their_own(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)

    def one(agent: str) -> None:
        with spendwatch.tags(agent=agent), requests.Session() as session:
            for _ in range(3):
                session.post(provider.url + PATH, json=ASK, stream=True).json()

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(one, f"a{n}") for n in range(6)))

    asyncio.run(main())
    found = [attributes(span) for span in spans()]
    assert sorted(f["spendwatch.tags.agent"] for f in found) == sorted(f"a{n}" for n in range(6) for _ in range(3))


def test_a_call_is_the_child_of_the_span_it_was_made_in(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    tracer = TracerProvider().get_tracer("app")
    with tracer.start_as_current_span("work") as work:
        requests.post(provider.url + PATH, json=ASK, timeout=20)
        assert trace.get_current_span() is work
    [span] = spans()
    assert span.parent is not None
    assert span.parent.span_id == work.get_span_context().span_id


def test_a_reply_through_a_tunnel_is_of_the_host_behind_it(provider: Loopback, spans: Spans) -> None:
    # The loopback end understands no CONNECT; what matters is whose call it would have been.
    def answers(seen: Seen) -> Answer:
        return Answer(chunks=[CHAT_BODY])

    provider.answers = answers
    manager = urllib3.ProxyManager(provider.url)
    response = manager.request("POST", "http://api.openai.com" + PATH, json=ASK)
    assert response.json() == CHAT
    assert provider.seen[0].target == "http://api.openai.com" + PATH
    has(only(spans()), **{"server.address": "api.openai.com", "gen_ai.provider.name": "openai"})
    manager.clear()


def pieces() -> Iterator[bytes]:
    yield json.dumps(ASK).encode()


def test_a_generated_body_is_sent_as_it_is_made(provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    requests.post(provider.url + PATH, data=pieces(), timeout=20)
    assert json.loads(provider.seen[0].body) == ASK
    has(only(spans()), **TOKENS)
