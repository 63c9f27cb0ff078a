"""Switching on and off: in any order of imports, twice, beside OpenTelemetry, and what it brings along."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import spendwatch
from spendwatch.errors import ConfigError
from tests.hooks.loopback import Loopback
from tests.sdk.conftest import ROOT, Run
from tests.sdk.sink import Sink

ASK = {"model": "gpt-4o-mini", "messages": []}
PATH = "/v1/chat/completions"


def python(program: str, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SPENDWATCH_", "OTEL_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={**clean, **env},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sdk_imports_and_records_without_the_servers_libraries(tmp_path: Path, provider: Loopback) -> None:
    program = """
    import os, sys
    BLOCKED = ("django", "celery", "clickhouse_connect", "chdb", "pydantic", "pydantic_settings")
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in BLOCKED:
                raise ImportError(name)
    sys.meta_path.insert(0, Block())
    import spendwatch
    spendwatch.instrument()
    import httpx
    httpx.post(os.environ["URL"], json={"model": "gpt-4o-mini", "messages": []}).raise_for_status()
    spendwatch.flush(0.5)
    assert not [name for name in sys.modules if name.split(".")[0] in BLOCKED]
    from pathlib import Path
    print(len(list(Path(os.environ["SPENDWATCH_SPOOL_DIR"]).rglob("*.spool"))))
    """
    env = {"SPENDWATCH_SPOOL_DIR": str(tmp_path), "SPENDWATCH_ENDPOINT": "http://127.0.0.1:1", "SPENDWATCH_STRICT": "1"}
    assert python(program, URL=provider.url + PATH, **env) == "1\n"


def test_importing_and_instrumenting_brings_no_client_and_opens_no_socket(tmp_path: Path) -> None:
    program = """
    import socket, sys, threading
    def refuse(*a, **k): raise AssertionError("a socket")
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
    import spendwatch
    before = set(sys.modules)
    assert not {"opentelemetry.sdk", "opentelemetry.proto", "http.client"} & before, before
    spendwatch.instrument()
    assert not {"opentelemetry.sdk", "opentelemetry.proto", "google.protobuf"} & set(sys.modules)
    assert not {"httpx", "httpx2", "httpcore", "openai", "anthropic", "opentelemetry.sdk.trace"} & set(sys.modules)
    assert threading.active_count() == 1
    """
    python(program, SPENDWATCH_SPOOL_DIR=str(tmp_path))


@pytest.mark.parametrize("first", ["instrument", "import"])
def test_it_does_not_matter_whether_the_client_is_imported_before_or_after(first: str, run: Run, sink: Sink) -> None:
    # The prologue of every program imports httpx; httpx2 is what is early or late here.
    lines = ["import httpx2", "spendwatch.instrument()"]
    if first == "instrument":
        lines.reverse()
    program = "\n".join(
        [
            "assert 'httpx2' not in sys.modules",
            *lines,
            "httpx2.post(URL, json={'model': 'm', 'messages': []})",
            "call()",
            "assert httpx2.__spec__.loader is httpx2.__loader__ and 'spendwatch' not in repr(httpx2.__loader__)",
            "print(spendwatch.flush())",
        ]
    )
    out, err = run(program, sink.url).communicate(timeout=60)
    assert out == "True\n", err
    assert len(sink.taken) == 2


def test_twice_is_once(provider: Loopback) -> None:
    exporter = InMemorySpanExporter()
    for _ in range(3):
        spendwatch.instrument(span_exporter=exporter)
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    assert len(exporter.get_finished_spans()) == 1


def test_other_arguments_replace_the_first(provider: Loopback) -> None:
    first, second = InMemorySpanExporter(), InMemorySpanExporter()
    spendwatch.instrument(span_exporter=first)
    httpx.post(provider.url + PATH, json=ASK)
    spendwatch.instrument(span_exporter=second, tags={"team": "b"})
    httpx.post(provider.url + PATH, json=ASK)
    spendwatch.flush()
    # What the first had waiting was handed over when it was replaced.
    assert len(first.get_finished_spans()) == 1
    (span,) = second.get_finished_spans()
    assert (span.attributes or {})["spendwatch.tags.team"] == "b"


def test_only_the_chosen_clients_are_hooked(provider: Loopback) -> None:
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter, clients=["httpx2"])
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    assert exporter.get_finished_spans() == ()


def test_otel_sdk_disabled_turns_it_off(provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter)
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    assert exporter.get_finished_spans() == ()


def test_flush_and_uninstrument_are_harmless_when_nothing_is_on() -> None:
    spendwatch.uninstrument()
    assert spendwatch.flush()


def test_what_is_exported_is_documented_and_there() -> None:
    for name in spendwatch.__all__:
        assert getattr(spendwatch, name).__doc__ or name == "__version__"


@pytest.mark.parametrize("order", ["otel first", "spendwatch first"])
def test_beside_the_http_instrumentation_each_makes_its_own_span(order: str, provider: Loopback) -> None:
    ours, theirs = InMemorySpanExporter(), InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(theirs))
    if order == "spendwatch first":
        spendwatch.instrument(span_exporter=ours)
    HTTPXClientInstrumentor().instrument(tracer_provider=app)
    try:
        spendwatch.instrument(span_exporter=ours)
        httpx.post(provider.url + PATH, json=ASK)
    finally:
        HTTPXClientInstrumentor().uninstrument()
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    assert len(ours.get_finished_spans()) == 2
    assert [span.name for span in theirs.get_finished_spans()] == ["POST"]
    assert provider.seen[1].headers.get("traceparent") is None


def test_a_call_is_shown_in_the_apps_own_traces_whatever_its_sampler_decides(provider: Loopback) -> None:
    ours, theirs = InMemorySpanExporter(), InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(theirs))
    spendwatch.instrument(span_exporter=ours, tracer_provider=app)
    with app.get_tracer("app").start_as_current_span("work") as work:
        httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    (recorded,) = ours.get_finished_spans()
    shown = next(span for span in theirs.get_finished_spans() if span.name.startswith("chat"))
    assert recorded.context is not None
    assert shown.context is not None
    assert recorded.parent is not None
    assert (recorded.context.span_id, recorded.context.trace_id) == (shown.context.span_id, shown.context.trace_id)
    assert recorded.parent.span_id == work.get_span_context().span_id
    assert dict(shown.attributes or {}) == dict(recorded.attributes or {})

    spendwatch.instrument(span_exporter=ours, tracer_provider=TracerProvider(sampler=ALWAYS_OFF))
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    assert len(ours.get_finished_spans()) == 2


class Started(SpanProcessor):
    """What is known of each span when it starts."""

    def __init__(self) -> None:
        self.spans: list[dict[str, object]] = []

    def on_start(self, span: Span, parent_context: object = None) -> None:
        self.spans.append({"name": span.name, **(span.attributes or {})})


def test_a_tracer_provider_alone_gets_the_spans_and_nothing_is_spooled(provider: Loopback, tmp_path: Path) -> None:
    shown, started = InMemorySpanExporter(), Started()
    app = TracerProvider()
    app.add_span_processor(started)
    app.add_span_processor(BatchSpanProcessor(shown))
    spendwatch.instrument(tracer_provider=app)
    with app.get_tracer("app").start_as_current_span("work") as work:
        httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    (span, _) = shown.get_finished_spans()
    assert span.parent is not None
    assert span.parent.span_id == work.get_span_context().span_id
    assert started.spans[1] == {"name": span.name, **(span.attributes or {})}
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 1231
    assert not list(tmp_path.rglob("*.spool"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spendwatch")]
    app.shutdown()


@pytest.mark.parametrize("how", ["argument", "SPENDWATCH_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_with_an_endpoint_as_well_both_get_the_call(
    how: str, provider: Loopback, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(shown))
    if how == "argument":
        spendwatch.instrument(tracer_provider=app, endpoint=sink.url)
    else:
        monkeypatch.setenv(how, sink.url)
        spendwatch.instrument(tracer_provider=app)
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush()
    (span,) = shown.get_finished_spans()
    assert span.context is not None
    assert list(sink.taken) == [f"{span.context.span_id:016x}"]


@pytest.mark.parametrize("instrumented", [False, True])
def test_http_spans_stand_under_the_calls_span(instrumented: bool, provider: Loopback) -> None:
    ours, theirs = InMemorySpanExporter(), InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(theirs))
    if instrumented:
        HTTPXClientInstrumentor().instrument(tracer_provider=app)
    try:
        spendwatch.instrument(span_exporter=ours, tracer_provider=app, http_spans=True)
        httpx.post(provider.url + PATH, json=ASK)
        httpx.get(provider.url + "/other")
    finally:
        if instrumented:
            HTTPXClientInstrumentor().uninstrument()
    assert spendwatch.flush()
    (recorded,) = ours.get_finished_spans()
    assert recorded.context is not None
    children = [s for s in theirs.get_finished_spans() if s.parent and s.parent.span_id == recorded.context.span_id]
    # Made by the app's own instrumentation, or by ours around this one request; then for no other.
    assert [span.name for span in children] == ["POST"]
    assert len([s for s in theirs.get_finished_spans() if s.name == "GET"]) == instrumented


def test_http_spans_come_by_themselves_with_a_provider_of_the_apps(run: Run, sink: Sink) -> None:
    program = """
    import json
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    spendwatch.instrument()
    call()
    shown = InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(shown))
    trace.set_tracer_provider(app)
    call()
    spendwatch.flush()
    print(json.dumps([(s.name, s.parent and s.parent.span_id, s.context.span_id) for s in shown.get_finished_spans()]))
    """
    out, err = run(program, sink.url).communicate(timeout=60)
    assert err == ""
    (http, none_or_parent, _), (chat, parent, span_id) = json.loads(out)
    assert (http, chat, parent) == ("POST", "chat gpt-4o-mini", None)
    assert none_or_parent == span_id
    assert f"{span_id:016x}" in sink.taken
    assert len(sink.taken) == 2


def test_http_spans_without_the_package_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.httpx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(ConfigError, match="opentelemetry-instrumentation-httpx"):
        spendwatch.instrument(http_spans=True)


def test_zero_code_by_opentelemetry_instrument(run: Run, sink: Sink, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import os, httpx\n"
        "httpx.post(os.environ['TEST_PROVIDER'] + '/v1/chat/completions', json={'model': 'm', 'messages': []})\n"
    )
    launcher = str(Path(sys.executable).parent / "opentelemetry-instrument")
    process = run(
        f"os.execv({launcher!r}, [{launcher!r}, sys.executable, {str(app)!r}])",
        sink.url,
        OTEL_SERVICE_NAME="zero",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(sink.taken) == 1
    assert sink.services == ["zero"]


def test_a_span_exporter_that_fails_is_tried_again(provider: Loopback) -> None:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Failing(InMemorySpanExporter):
        attempts = 0

        def export(self, spans: "list[ReadableSpan]") -> SpanExportResult:  # type: ignore[override]
            self.attempts += 1
            if self.attempts == 1:
                return SpanExportResult.FAILURE
            if self.attempts == 2:
                raise OSError("away")
            return super().export(spans)

    exporter = Failing()
    spendwatch.instrument(span_exporter=exporter)
    httpx.post(provider.url + PATH, json=ASK)
    assert spendwatch.flush(20)
    assert len(exporter.get_finished_spans()) == 1
    assert trace.get_current_span() is trace.INVALID_SPAN
