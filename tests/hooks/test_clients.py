"""The suite that every hooked client passes."""

import asyncio
import gc
import gzip
import hashlib
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from backports import zstd
from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks.exchange import live
from tests.hooks.clients import KINDS, Client, Kind, each
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, MESSAGE, PATH, SSE, chat_events, message_events

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=str)

TOKENS = {
    "gen_ai.usage.input_tokens": 1231,
    "gen_ai.usage.output_tokens": 47,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.reasoning.output_tokens": 13,
}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def only(spans: list[ReadableSpan]) -> dict[str, Any]:
    assert len(spans) == 1, [attributes(s) for s in spans]
    return attributes(spans[0])


def has(found: dict[str, Any], **expected: Any) -> None:
    assert {k: found.get(k) for k in expected} == expected


def test_a_plain_call_is_one_span_with_its_tokens(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY, framing="length")

    def body(client: Client) -> Iterator[Any]:
        response = yield client.post(provider.url + PATH, json=ASK, headers={"authorization": "Bearer sk-secret"})
        assert response.json() == CHAT

    kind.run(body)
    recorded = spans()
    found = only(recorded)
    assert recorded[0].name == "chat gpt-4o-mini"
    assert recorded[0].kind is trace.SpanKind.CLIENT
    assert recorded[0].resource.attributes["service.name"] == "tests"
    assert recorded[0].instrumentation_scope is not None
    assert recorded[0].instrumentation_scope.name == "spendwatch"
    assert found.items() >= TOKENS.items()
    has(
        found,
        **{
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.id": "chatcmpl-plain1",
            "gen_ai.response.finish_reasons": ("stop",),
            "http.response.status_code": 200,
            "server.address": "127.0.0.1",
            "server.port": provider.port,
            "spendwatch.status": "ok",
            "spendwatch.key_hash": hashlib.sha256(b"sk-secret").hexdigest(),
        },
    )


def test_nothing_of_the_content_and_no_key_is_kept(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY, framing="length")
    kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK, headers={"x-api-key": "sk-very-secret"})))
    kept = repr([(s.name, s.attributes, s.events, s.resource.attributes) for s in spans()])
    for secret in ("France", "Paris", "sk-very-secret"):
        assert secret not in kept


def test_a_stream_arrives_piece_by_piece_as_it_was_sent(kind: Kind, provider: Loopback, spans: Spans) -> None:
    events = chat_events()
    first_seen = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield events[0]
        assert first_seen.wait(20)
        yield from events[1:]

    provider.answers = lambda seen: Answer(chunks=chunks(), headers=SSE)
    got: list[bytes] = []

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True}, decode=False)
        iterator = client.raw_chunks(response)
        got.append((yield client.next(iterator)))
        # The provider sends no more before this: the first piece was not held back.
        first_seen.set()
        got.extend((yield from each(client, iterator)))
        yield client.close(response)

    kind.run(body)
    assert got[0] == events[0]
    assert b"".join(got) == b"".join(events)
    found = only(spans())
    assert found.items() >= TOKENS.items()
    has(found, **{"gen_ai.request.stream": True, "spendwatch.status": "ok", "gen_ai.response.id": "chatcmpl-stream1"})
    assert found["gen_ai.response.time_to_first_chunk"] > 0


def test_an_anthropic_stream_is_read_too(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(*message_events(), headers=SSE)
    ask = {"model": "claude-sonnet-4-5", "max_tokens": 9, "stream": True, "messages": ASK["messages"]}
    kind.run(
        lambda c: (yield c.post(provider.url + "/v1/messages", json=ask, headers={"anthropic-version": "2023-06-01"}))
    )
    has(
        only(spans()),
        **{
            "gen_ai.usage.input_tokens": 311 + 2048 + 512,
            "gen_ai.usage.output_tokens": 83,
            "gen_ai.usage.cache_read.input_tokens": 2048,
            "gen_ai.usage.cache_write.input_tokens": 512,
            "gen_ai.response.id": MESSAGE["id"],
            "spendwatch.status": "ok",
        },
    )


def test_a_stream_left_after_its_last_event_is_complete(kind: Kind, provider: Loopback, spans: Spans) -> None:
    events = chat_events()
    provider.always(*events, headers=SSE)

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        text = b""
        iterator = client.chunks(response)
        while b"[DONE]" not in text:
            text += yield client.next(iterator)
        yield client.close(response)

    kind.run(body)
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})


def test_a_stream_closed_early_is_recorded_once_as_aborted(kind: Kind, provider: Loopback, spans: Spans) -> None:
    release = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield chat_events()[0]
        release.wait(20)

    provider.answers = lambda seen: Answer(chunks=chunks(), headers=SSE, cut=True)

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        yield client.next(client.chunks(response))
        yield client.close(response)
        yield client.close(response)

    kind.run(body)
    release.set()
    found = only(spans())
    has(found, **{"spendwatch.status": "aborted", "gen_ai.response.id": "chatcmpl-stream1"})
    assert not [name for name in found if name.startswith("gen_ai.usage.")]


# aiohttp says of a connection that was not closed that it was not.
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_a_response_that_nobody_reads_or_closes_is_recorded_once(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY, framing="length")

    kind.run(lambda client: [(yield client.open(provider.url + PATH, json=ASK))].clear())
    gc.collect()
    assert not live
    has(only(spans()), **{"spendwatch.status": "aborted", "gen_ai.request.model": "gpt-4o-mini"})


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_a_loop_that_breaks_off_is_recorded_once_as_aborted(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(*chat_events(50, done=False), headers=SSE)

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        yield client.next(client.chunks(response))

    kind.run(body)
    gc.collect()
    has(only(spans()), **{"spendwatch.status": "aborted"})


def test_an_error_reply_is_recorded_with_its_status(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(
        b'{"error":{"message":"slow down","type":"rate_limit_error","code":"x"}}', status=429, framing="length"
    )

    def body(client: Client) -> Iterator[Any]:
        response = yield client.post(provider.url + PATH, json=ASK)
        assert response.status_code == 429

    kind.run(body)
    recorded = spans()
    assert recorded[0].status.status_code is trace.StatusCode.ERROR
    has(
        only(recorded),
        **{"spendwatch.status": "error", "http.response.status_code": 429, "error.type": "rate_limit_error"},
    )


def test_a_refused_connection_is_raised_unchanged_and_recorded(kind: Kind, provider: Loopback, spans: Spans) -> None:
    def body(client: Client) -> Iterator[Any]:
        with pytest.raises(kind.refused[0]):
            # Port 1 of the loopback is never listened to.
            yield client.post("http://127.0.0.1:1" + PATH, json=ASK)

    kind.run(body)
    found = only(spans())
    has(found, **{"spendwatch.status": "error", "error.type": kind.refused[1], "gen_ai.request.model": "gpt-4o-mini"})
    assert "http.response.status_code" not in found


def test_a_timeout_is_raised_unchanged_and_recorded(kind: Kind, provider: Loopback, spans: Spans) -> None:
    release = threading.Event()

    def answers(seen: Seen) -> Answer:
        release.wait(20)
        return Answer(drop=True)

    provider.answers = answers

    def body(client: Client) -> Iterator[Any]:
        with pytest.raises(kind.timeout[0]):
            yield client.post(provider.url + PATH, json=ASK, timeout=0.2)

    kind.run(body)
    release.set()
    has(only(spans()), **{"spendwatch.status": "error", "error.type": kind.timeout[1]})


def test_a_connection_that_breaks_in_mid_stream_is_an_error(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(*chat_events(done=False, usage=False), headers=SSE, cut=True)

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        with pytest.raises(kind.broken[0]):
            yield client.read(response)

    kind.run(body)
    found = only(spans())
    has(found, **{"spendwatch.status": "error", "error.type": kind.broken[1]})
    assert found["gen_ai.response.id"] == "chatcmpl-stream1"
    assert "gen_ai.usage.output_tokens" not in found


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate", "zstd", "gzip, identity", "deflate, gzip"])
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_compressed_body_is_read_and_reaches_the_app_as_it_is(
    kind: Kind, provider: Loopback, spans: Spans, encoding: str, size: int
) -> None:
    plain = b"".join(chat_events())
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": lambda: gzip.compress(plain),
        "deflate": lambda: zlib.compress(plain),
        "raw-deflate": lambda: raw.compress(plain) + raw.flush(),
        "zstd": lambda: zstd.compress(plain),
        "gzip, identity": lambda: gzip.compress(plain),
        "deflate, gzip": lambda: gzip.compress(zlib.compress(plain)),
    }[encoding]()
    pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
    header = encoding.removeprefix("raw-")
    provider.answers = lambda seen: Answer(chunks=pieces, headers={**SSE, "content-encoding": header})

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True}, decode=False)
        raw_pieces = yield from each(client, client.raw_chunks(response))
        assert b"".join(raw_pieces) == packed
        # No client can read raw deflate from a first piece of one byte.
        if encoding in kind.decodes and (encoding, size) != ("raw-deflate", 1):
            response = yield client.post(provider.url + PATH, json={**ASK, "stream": True})
            assert response.content == plain

    kind.run(body)
    recorded = spans()
    assert len(recorded) == len(provider.seen)
    for span in recorded:
        has(attributes(span), **{"spendwatch.status": "ok", **TOKENS})


def test_a_body_that_can_not_be_decoded_is_recorded_with_a_note(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(b"not gzip at all", headers={"content-encoding": "gzip"})

    def body(client: Client) -> Iterator[Any]:
        if kind.undecodable is None:
            yield client.post(provider.url + PATH, json=ASK)
            return
        with pytest.raises(kind.undecodable):
            yield client.post(provider.url + PATH, json=ASK)

    kind.run(body)
    found = only(spans())
    if kind.hides_encoding:
        has(found, **{"spendwatch.status": "error", "error.type": "ClientPayloadError"})
    elif not kind.reads_ahead:
        assert "could not be decoded" in found["spendwatch.attributes.note"]
    else:
        has(found, **{"spendwatch.status": "error", "error.type": "DecodeError"})


def test_what_is_no_llm_call_is_left_alone(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(b'{"ok":true}', framing="length")
    untouched: list[bool] = []

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + "/api/orders?id=1", json={"model": "T"})
        untouched.append(kind.untouched(response))
        yield client.read(response)
        yield client.get(provider.url + "/")

    kind.run(body)
    assert spans() == []
    assert untouched == [True]


def test_retries_are_calls_of_their_own(kind: Kind, provider: Loopback, spans: Spans) -> None:
    replies = iter([Answer(chunks=[b"{}"], status=500), Answer(chunks=[b"{}"], status=503), Answer(chunks=[CHAT_BODY])])
    provider.answers = lambda seen: next(replies)

    def body(client: Client) -> Iterator[Any]:
        for _ in range(3):
            yield client.post(provider.url + PATH, json=ASK)

    kind.run(body)
    recorded = [attributes(s) for s in spans()]
    assert [r["spendwatch.status"] for r in recorded] == ["error", "error", "ok"]
    assert [r["http.response.status_code"] for r in recorded] == [500, 503, 200]


def test_a_redirect_is_no_call_but_what_it_leads_to_is(kind: Kind, provider: Loopback, spans: Spans) -> None:
    def answers(seen: Seen) -> Answer:
        if seen.target == PATH:
            return Answer(status=307, headers={"location": "/eu" + PATH})
        return Answer(chunks=[CHAT_BODY])

    provider.answers = answers

    def body(client: Client) -> Iterator[Any]:
        response = yield client.post(provider.url + PATH, json=ASK)
        assert response.status_code == 307
        if kind.follows_redirects:
            response = yield client.post(provider.url + PATH, json=ASK, follow_redirects=True)
            assert response.json() == CHAT

    kind.run(body)
    recorded = spans()
    if kind.follows_redirects:
        has(only(recorded), **TOKENS)
    else:
        assert recorded == []
    assert not live


def test_a_request_body_that_streams_is_sent_untouched(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    parts = [b'{"model": "gpt-4o-mini",', b' "messages": []}']

    async def asynchronous() -> Any:
        for part in parts:
            yield part

    content: Any = asynchronous() if kind.is_async else iter(parts)
    kind.run(lambda c: (yield c.post("http://api.openai.com" + PATH, content=content)), proxy=provider.url)
    assert provider.seen[0].body == b"".join(parts)
    has(only(spans()), **{"gen_ai.response.model": "gpt-4o-mini-2024-07-18", **TOKENS})


def test_tags_and_the_current_trace_are_on_the_span(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    parent = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(0))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    try:
        with spendwatch.tags(team="search", agent="crawler", ticket=7):
            kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK)))
    finally:
        context.detach(token)
    span = spans()[0]
    assert span.context is not None
    assert span.parent is not None
    # The app's sampler dropped this trace; the call is recorded all the same.
    assert (span.context.trace_id, span.parent.span_id) == (0xABC, 0xDEF)
    has(
        attributes(span),
        **{
            "spendwatch.tags.team": "search",
            "gen_ai.agent.name": "crawler",
            "spendwatch.tags.extra.ticket": "7",
        },
    )


def test_a_call_is_recorded_where_others_are_told_to_stay_away(kind: Kind, provider: Loopback, spans: Spans) -> None:
    # Logfire does that around the request of the SDK that it has instrumented.
    provider.always(CHAT_BODY)
    with suppress_instrumentation():
        kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK)))
    assert len(spans()) == 1


def test_hosts_can_be_named_and_excluded(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter, hosts={f"127.0.0.1:{provider.port}": "groq"})
    kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK)))
    spendwatch.flush()
    has(only(list(exporter.get_finished_spans())), **{"gen_ai.provider.name": "groq"})
    spendwatch.instrument(span_exporter=exporter, hosts={"127.0.0.1": None})
    kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK)))
    spendwatch.flush()
    assert len(exporter.get_finished_spans()) == 1


def test_a_cancelled_task_is_recorded_as_left(kind: Kind, provider: Loopback, spans: Spans) -> None:
    if not kind.is_async:
        pytest.skip("only a task can be cancelled")
    release = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield chat_events()[0]
        release.wait(20)

    provider.answers = lambda seen: Answer(chunks=chunks(), headers=SSE, cut=True)

    async def main() -> None:
        first = asyncio.Event()

        async def read() -> None:
            async with kind.client() as client:
                response = await client.open(provider.url + PATH, json={**ASK, "stream": True})
                try:
                    async for _ in client.chunks(response):
                        first.set()
                finally:
                    closing = client.close(response)
                    if closing is not None:
                        await closing

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    release.set()
    has(only(spans()), **{"spendwatch.status": "aborted"})


def test_after_uninstrument_nothing_is_left(kind: Kind, provider: Loopback, spans: Spans) -> None:
    provider.always(CHAT_BODY)
    hooked = [getattr(owner, name) for owner, name in kind.hooks]
    spendwatch.uninstrument()
    for (owner, name), function in zip(kind.hooks, hooked, strict=True):
        assert getattr(owner, name) is function.__wrapped__
        assert not hasattr(getattr(owner, name), "__wrapped__")
    kind.run(lambda c: (yield c.post(provider.url + PATH, json=ASK)))
    assert not live
