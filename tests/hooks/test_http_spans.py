"""http_spans: one HTTP span under the call's, over any client; a provider gets no header unless that was asked for."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks import httpspans
from tests.hooks.clients import KINDS, Client, Kind, each
from tests.hooks.loopback import Loopback
from tests.hooks.replies import ASK, CHAT_BODY, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, has

RIDES_ON = {"requests": "urllib3", "urllib.request": "http.client"}
MADE_HERE = [kind for kind in KINDS if kind.module.__name__ not in ("httpx", "httpx2")]


@pytest.fixture
def app() -> InMemorySpanExporter:
    """The spans of an app's own TracerProvider, in the order of their ends."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(app: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(app))
    return provider


def two(app: InMemorySpanExporter) -> tuple[ReadableSpan, ReadableSpan]:
    """The call's span and the HTTP span under it; there are no others."""
    spans = app.get_finished_spans()
    (call,) = [span for span in spans if span.name.startswith("chat")]
    (http,) = [span for span in spans if span is not call]
    assert http.parent is not None
    assert http.parent.span_id == call.context.span_id
    assert http.context.trace_id == call.context.trace_id
    return call, http


def ask(kind: Kind, url: str) -> Any:
    def body(client: Client) -> Iterator[Any]:
        yield client.post(url, json=ASK)

    return kind.run(body)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_asked_for_there_is_one_with_the_status_and_its_header(
    kind: Kind, provider: Loopback, app: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    provider.always(CHAT_BODY, framing="length")
    spendwatch.instrument(tracer_provider=tracer_provider, http_spans=True)
    ask(kind, provider.url + PATH + "?key=sk-secret")
    call, http = two(app)
    attributes = dict(http.attributes or {})
    assert 200 in (attributes.get("http.response.status_code"), attributes.get("http.status_code"))
    assert http.kind is trace.SpanKind.CLIENT
    assert "sk-secret" not in str(attributes)
    has(dict(call.attributes or {}), **TOKENS)
    assert http.context is not None
    assert provider.seen[0].headers["traceparent"].split("-")[2] == f"{http.context.span_id:016x}"
    assert provider.seen[0].body
    assert http.end_time is not None
    assert call.end_time is not None
    assert http.end_time <= call.end_time


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if httpspans.installed(RIDES_ON.get(kind.module.__name__, kind.module.__name__))],
    ids=str,
)
def test_not_asked_for_it_is_made_for_an_app_with_traces_of_its_own_and_adds_no_header(
    kind: Kind,
    provider: Loopback,
    app: InMemorySpanExporter,
    tracer_provider: TracerProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracer_provider)
    spendwatch.instrument(tracer_provider=tracer_provider)
    ask(kind, provider.url + PATH)
    two(app)
    assert not {"traceparent", "tracestate", "baggage"} & set(provider.seen[0].headers)


@pytest.mark.parametrize("kind", MADE_HERE, ids=str)
def test_under_another_http_span_it_is_left_out(
    kind: Kind, provider: Loopback, app: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    spendwatch.instrument(tracer_provider=tracer_provider, http_spans=True)
    tracer = tracer_provider.get_tracer("opentelemetry.instrumentation.requests")
    with tracer.start_as_current_span("POST"):
        ask(kind, provider.url + PATH)
    names = [span.name for span in app.get_finished_spans()]
    assert names == ["chat gpt-4o-mini", "POST"]
    assert "traceparent" not in provider.seen[0].headers


@pytest.mark.parametrize("kind", MADE_HERE, ids=str)
def test_without_a_reply_it_has_the_error(
    kind: Kind, app: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    spendwatch.instrument(tracer_provider=tracer_provider, http_spans=True)
    with pytest.raises(kind.refused[0]):
        ask(kind, "http://127.0.0.1:1" + PATH)
    _, http = two(app)
    assert http.status.status_code is trace.StatusCode.ERROR
    assert (http.attributes or {})["error.type"] == kind.refused[1]


@pytest.mark.parametrize("kind", [kind for kind in MADE_HERE if not kind.reads_ahead], ids=str)
def test_with_a_stream_whose_usage_is_asked_for_both_go_together(
    kind: Kind, provider: Loopback, app: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    provider.always(*chat_events(), headers=SSE)
    spendwatch.instrument(
        tracer_provider=tracer_provider,
        http_spans=True,
        request_stream_usage=True,
        hosts={f"127.0.0.1:{provider.port}": "openai"},
    )

    def body(client: Client) -> Iterator[Any]:
        response = yield client.open(provider.url + PATH, json={**ASK, "stream": True})
        pieces = yield from each(client, client.chunks(response))
        assert b"".join(pieces) == b"".join(chat_events(usage=False))

    kind.run(body)
    two(app)
    assert b"include_usage" in provider.seen[0].body
    assert "traceparent" in provider.seen[0].headers
