"""request_stream_usage: the usage of a chat stream is asked for, recorded, and kept from the app."""

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks.usage import Without
from tests.hooks.clients import HTTPX_KINDS, KINDS, Client, Kind, each
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import ASK, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, has, only

UNASKED = b"".join(chat_events(usage=False))


def answers(seen: Seen) -> Answer:
    asked = json.loads(seen.body).get("stream_options", {}).get("include_usage", False)
    body = b"".join(chat_events(usage=asked))
    headers = dict(SSE)
    if "gzip" in seen.headers.get("accept-encoding", ""):
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    return Answer(chunks=[body[i : i + 37] for i in range(0, len(body), 37)], headers=headers)


@pytest.fixture
def asking(provider: Loopback) -> Spans:
    """Like spans, with request_stream_usage on and the provider known as OpenAI."""
    provider.answers = answers
    exporter = InMemorySpanExporter()
    spendwatch.instrument(
        span_exporter=exporter, request_stream_usage=True, hosts={f"127.0.0.1:{provider.port}": "openai"}
    )

    def recorded() -> list[ReadableSpan]:
        assert spendwatch.flush()
        return list(exporter.get_finished_spans())

    return recorded


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_over_any_client_the_usage_is_recorded_and_kept_from_the_app(
    kind: Kind, framing: str, provider: Loopback, asking: Spans
) -> None:
    provider.answers = lambda seen: replace(answers(seen), framing=framing)
    sent = {**ASK, "stream": True}

    def body(client: Client) -> Iterator[Any]:
        for _ in range(2):  # over the same connection, where it is kept
            response = yield client.open(provider.url + PATH, json=sent)
            pieces = yield from each(client, client.chunks(response))
            yield client.close(response)
            # Where the head named a length, blank lines stand for what is missing: no event.
            assert b"".join(pieces).rstrip(b"\n") == UNASKED.rstrip(b"\n")
        response = yield client.post(provider.url + PATH, json=sent)
        assert response.content.rstrip(b"\n") == UNASKED.rstrip(b"\n")

    kind.run(body)
    for arrived in provider.seen:
        assert json.loads(arrived.body) == {**sent, "stream_options": {"include_usage": True}}
        assert arrived.headers["content-length"] == str(len(arrived.body))
    spans = asking()
    assert len(spans) == 3
    for span in spans:
        has(dict(span.attributes or {}), **{"spendwatch.status": "ok", "gen_ai.provider.name": "openai", **TOKENS})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.reads_ahead], ids=str)
def test_pieces_come_as_early_as_their_events_are_whole(kind: Kind, provider: Loopback, asking: Spans) -> None:
    go = threading.Event()

    def slowly() -> Iterator[bytes]:
        events = chat_events()
        yield events[0]
        assert go.wait(20)
        yield from events[1:]

    provider.answers = lambda seen: Answer(chunks=slowly(), headers=SSE)

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        chunks = client.chunks(response)
        first = yield client.next(chunks)
        assert first == chat_events()[0]
        go.set()
        rest = yield from each(client, chunks)
        assert first + b"".join(rest) == UNASKED

    kind.run(body)
    has(only(asking()), **TOKENS)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_stream_that_breaks_is_the_same_fault_to_the_app(kind: Kind, provider: Loopback, asking: Spans) -> None:
    provider.answers = lambda seen: Answer(chunks=chat_events()[:3], headers=SSE, cut=True)

    def body(client: Client) -> Iterator[Any]:
        if kind.reads_ahead:
            with pytest.raises(kind.broken[0]):
                yield client.post(provider.url + PATH, json={**ASK, "stream": True})
            return
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        with pytest.raises(kind.broken[0]):
            yield from each(client, client.chunks(response))
        yield client.close(response)

    kind.run(body)
    # Read ahead, the fault has reached urllib3 before it reaches us.
    error_type = "ProtocolError" if kind.reads_ahead else kind.broken[1]
    has(only(asking()), **{"spendwatch.status": "error", "error.type": error_type})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.reads_ahead], ids=str)
def test_a_stream_left_half_way_is_aborted(kind: Kind, provider: Loopback, asking: Spans) -> None:
    go = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield chat_events()[0]
        go.wait(20)

    provider.answers = lambda seen: Answer(chunks=slowly(), headers=SSE)

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        yield client.next(client.chunks(response))
        yield client.close(response)

    try:
        kind.run(body)
        has(only(asking()), **{"spendwatch.status": "aborted"})
    finally:
        go.set()


@pytest.mark.parametrize("kind", HTTPX_KINDS, ids=str)
def test_the_usage_is_recorded_and_the_app_gets_what_it_asked_for(
    kind: Kind, provider: Loopback, asking: Spans
) -> None:
    sent = json.dumps({**ASK, "stream": True}).encode() + b"\n"

    def body(client: Client) -> Iterator[Any]:
        request = client.raw.build_request("POST", provider.url + PATH, content=sent)
        response = yield client.raw.send(request, stream=True)
        pieces = yield from each(client, client.chunks(response))
        assert b"".join(pieces) == UNASKED
        # The app's own request is as it was made.
        assert response.request is request
        assert request.content == sent
        assert request.headers["content-length"] == str(len(sent))

    kind.run(body)
    arrived = provider.seen[0]
    assert json.loads(arrived.body) == {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    assert arrived.headers["content-length"] == str(len(arrived.body))
    has(only(asking()), **{"spendwatch.status": "ok", "gen_ai.provider.name": "openai", **TOKENS})


def test_the_sdk_sees_no_chunk_without_choices(provider: Loopback, asking: Spans) -> None:
    with openai.OpenAI(api_key="sk", base_url=provider.url + "/v1", max_retries=0) as client:
        stream = client.chat.completions.create(model="gpt-4o-mini", messages=ASK["messages"], stream=True)
        assert [len(chunk.choices) for chunk in stream] == [1] * 6
    has(only(asking()), **TOKENS)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"stream": False},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": None},
    ],
)
def test_a_request_that_needs_no_question_is_sent_as_it_is(
    changed: dict[str, Any], provider: Loopback, asking: Spans
) -> None:
    provider.answers = lambda seen: Answer(chunks=chat_events(), headers=SSE)
    sent = json.dumps({**ASK, **changed}).encode()
    with httpx.Client() as client:
        received = client.post(provider.url + PATH, content=sent).content
    assert provider.seen[0].body == sent
    assert received == b"".join(chat_events())
    assert len(asking()) == 1


def test_a_provider_that_may_not_understand_is_not_asked(provider: Loopback, spans: Spans) -> None:
    provider.answers = answers
    exporter = InMemorySpanExporter()
    for hosts in ({}, {f"127.0.0.1:{provider.port}": "openrouter"}):
        spendwatch.instrument(span_exporter=exporter, request_stream_usage=True, hosts=hosts)
        with httpx.Client() as client:
            assert client.post(provider.url + PATH, json={**ASK, "stream": True}).content == UNASKED
    assert all(b"stream_options" not in seen.body for seen in provider.seen)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 5, 10_000])
def test_only_the_event_that_is_nothing_but_usage_is_taken_out(newline: bytes, size: int) -> None:
    filters = b'data: {"choices":[],"prompt_filter_results":[{"usage":1}]}\n\n'
    nulls = b'data: {"choices":[{"delta":{"content":"\\"usage\\""}}],"usage":null}\n\n'
    comment = b": keep-alive\n\n"
    usage = b'event: x\ndata: {"choices": [],\ndata: "usage": {"prompt_tokens": 1}}\n\n'
    end = b"data: [DO"
    given = b"".join([filters, comment, nulls, usage, nulls, end]).replace(b"\n", newline)
    without = Without()
    passed = b"".join(without.feed(given[i : i + size]) for i in range(0, len(given), size)) + without.close()
    assert passed == b"".join([filters, comment, nulls, nulls, end]).replace(b"\n", newline)
