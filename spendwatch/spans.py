"""Calls as the OpenTelemetry SDK's own spans: for an exporter the app named, and for the app's own traces.

Only imported when one of the two is wanted: bytes need no SDK. Invariant: the attributes are those that OTLP carries.
"""

from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from spendwatch import otlp, semconv
from spendwatch.calls import CallStatus, LLMCall
from spendwatch.exporter import Outcome, Verdict
from spendwatch.version import __version__

_CLIENTS = frozenset({"com.anthropic.sdk.python"})
"""Scopes of the SDKs that make a span of each call themselves, around all its attempts."""
_USAGE, _REPLY = "gen_ai.usage.", "gen_ai.response.id"

_tracers: WeakKeyDictionary[trace.TracerProvider, trace.Tracer] = WeakKeyDictionary()


class ToSpanExporter:
    """Hands spans to an app's SpanExporter, in the place of the one that posts them. The exporter stays the app's."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    @property
    def address(self) -> str:
        """What it hands spans to, for messages."""
        return type(self._exporter).__name__

    def post(self, body: bytes) -> Outcome:
        """Export the spans of one ExportTraceServiceRequest."""
        try:
            result = self._exporter.export(readable_spans(body))
        except Exception as exc:  # noqa: BLE001  # an exporter should not raise; ours must not lose the spans if it does
            return Outcome(Verdict.RETRY, f"{type(exc).__name__}: {exc}")
        if result is SpanExportResult.SUCCESS:
            return Outcome(Verdict.ACCEPTED)
        return Outcome(Verdict.RETRY, "it returned FAILURE")

    def close(self) -> None:
        """Nothing to close: the exporter is the app's to shut down."""

    def after_fork(self) -> None:
        """Nothing of ours came along."""


def readable_spans(body: bytes) -> list[ReadableSpan]:
    """The spans of an ExportTraceServiceRequest made by otlp.body()."""
    out: list[ReadableSpan] = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = Resource({item.key: _value(item.value) for item in group.resource.attributes})
        for scoped in group.scope_spans:
            scope = InstrumentationScope(scoped.scope.name, scoped.scope.version, scoped.schema_url)
            out.extend(_readable(span, resource, scope) for span in scoped.spans)
    return out


def _readable(span: SpanMessage, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    trace_id = int.from_bytes(span.trace_id, "big")
    parent = None
    if span.parent_span_id:
        parent = _context(trace_id, int.from_bytes(span.parent_span_id, "big"))
    failed = span.status.code == otlp.ERROR
    return ReadableSpan(
        name=span.name,
        context=_context(trace_id, int.from_bytes(span.span_id, "big")),
        parent=parent,
        resource=resource,
        attributes={item.key: _value(item.value) for item in span.attributes},
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind) if kind else ""


def start(provider: trace.TracerProvider, now_ns: int) -> trace.Span:
    """Begin a call's span in the app's own traces, for one that has others under it.

    The app's sampler decides there; what is recorded doesn't depend on it.
    """
    return tracer_of(provider).start_span("chat", kind=SpanKind.CLIENT, start_time=now_ns)


def whole(tracer: trace.Tracer, context: Context, now_ns: int, call: LLMCall) -> trace.Span:
    """A finished call's span in the app's own traces, all its attributes there from its start. close() ends it."""
    attributes = semconv.to_attributes(call)
    span = _clients_own(context)
    if span is not None and not span.is_recording():
        # A stream left early: the client's span has ended already. What it tells of this reply is told.
        told = span.attributes or {}
        if call.response_id is not None and told.get(_REPLY) == call.response_id:
            attributes = {k: v for k, v in attributes.items() if not (k.startswith(_USAGE) and k in told)}
    return tracer.start_span(
        semconv.span_name(call),
        context=context,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        start_time=now_ns,
    )


def told_by_its_client(context: Context, call: LLMCall) -> bool:
    """Whether the client makes a span of this call by itself, in the app's traces: then the call's facts go on that.

    Two spans with the same tokens would be counted twice by whoever adds them up. A span speaks of one reply: an
    attempt that failed, and a second reply under it, have a span of their own.
    """
    span = _clients_own(context)
    if span is None or not span.is_recording() or call.status is CallStatus.ERROR:
        return False
    if semconv.COST_BASIS in (span.attributes or {}):
        return False
    span.set_attributes(semconv.to_attributes(call))
    return True


def _clients_own(context: Context) -> Span | None:
    """The span that the client has made of the call itself."""
    span = trace.get_current_span(context)
    if not isinstance(span, Span):
        return None
    scope = span.instrumentation_scope
    return span if scope is not None and scope.name in _CLIENTS else None


def tracer_of(provider: trace.TracerProvider) -> trace.Tracer:
    """The tracer that makes our spans there."""
    tracer = _tracers.get(provider)
    if tracer is None:
        tracer = provider.get_tracer(semconv.SCOPE_NAME, __version__, schema_url=semconv.SCHEMA_URL)
        _tracers[provider] = tracer
    return tracer


def end(span: trace.Span, call: LLMCall) -> None:
    """Finish it with what the call turned out to be."""
    if span.is_recording():
        span.update_name(semconv.span_name(call))
        span.set_attributes(semconv.to_attributes(call))
    close(span, call)


def close(span: trace.Span, call: LLMCall) -> None:
    """End it when the call ended."""
    if call.status is CallStatus.ERROR and span.is_recording():
        span.set_status(Status(StatusCode.ERROR))
    span.end(otlp.unix_nano(call.started_at) + call.duration_us * 1_000)
