"""request_stream_usage: the usage of a chat stream is asked for, recorded, and kept from the app."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks.usage import Without
from tests.hooks.clients import HTTPX_KINDS, Client, Kind, each
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
