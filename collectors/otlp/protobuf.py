"""OTLP/protobuf: ExportTraceServiceRequest -> spans.

The message is walked down to its spans by hand and each span decoded alone, so that memory is bounded by the largest
span and the count of all of them is known before any is built: a 64 KiB gzip can hold 32 million empty spans, which
decoded at once would take gigabytes. Never here: what a span means.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from collectors.otlp.attributes import Attributes, read_value
from collectors.otlp.limits import Limits
from collectors.otlp.spans import Rejected, Span, TooMuchError, Wanted, text
from collectors.otlp.wire import ERROR, SPAN
from spendwatch.errors import ReadError

# Field numbers of opentelemetry/proto/collector/trace/v1/trace_service.proto and trace/v1/trace.proto.
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS, _SCOPE, _SPAN = 1, 1, 2, 1, 2

_EXPECTED = "expected an ExportTraceServiceRequest in protobuf"
_TODO = "Send OTLP protobuf, or JSON with content-type: application/json."


# What was learnt of attributes serves the next requests too.
_attributes = lru_cache(maxsize=4)(Attributes)


class _Budget:
    """Counts the parts of one request and stops it at the limit."""

    def __init__(self, limits: Limits) -> None:
        self.limit = limits.spans
        self.left = limits.spans

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooMuchError(
                f"expected at most {self.limit} spans in one request, found more. Send smaller batches "
                "(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, or send_batch_max_size of the Collector)."
            )


def read(body: bytes, *, limits: Limits, wanted: Wanted, resource_wanted: Wanted) -> Iterator[Span | Rejected]:
    """The spans of a request, one by one. Raises ReadError (TooMuchError beyond a limit) when the body is not one."""
    budget = _Budget(limits)
    attributes = _attributes(wanted)
    for number_, start, end in _messages(body, 0, len(body)):
        if number_ != _RESOURCE_SPANS:
            continue
        budget.take()
        resource = Resource()
        groups: list[tuple[int, int]] = []
        for inner, inner_start, inner_end in _messages(body, start, end):
            if inner == _RESOURCE:
                _merge(resource, body, inner_start, inner_end, limits)
            elif inner == _SCOPE_SPANS:
                budget.take()
                groups.append((inner_start, inner_end))
        resource_values = _values(resource.attributes, resource_wanted)
        for group_start, group_end in groups:
            scope = InstrumentationScope()
            places: list[tuple[int, int]] = []
            for inner, inner_start, inner_end in _messages(body, group_start, group_end):
                if inner == _SCOPE:
                    _merge(scope, body, inner_start, inner_end, limits)
                elif inner == _SPAN:
                    budget.take()
                    places.append((inner_start, inner_end))
            scope_name = text(scope.name)
            for span_start, span_end in places:
                if span_end - span_start > limits.span:
                    yield Rejected(f"a span of {span_end - span_start} bytes, expected at most {limits.span}")
                    continue
                yield _span(body, span_start, span_end, scope_name, resource_values, attributes)


def _span(body: bytes, start: int, end: int, scope: str, resource: dict[str, object], attributes: Attributes) -> Span:
    try:
        span = SPAN.FromString(body[start:end])
        values = attributes.read(span.attributes, {})
    except DecodeError as error:
        raise ReadError(f"{_EXPECTED}, found a broken Span at byte {start} ({error}). {_TODO}") from None
    parent = span.parent_span_id
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=parent.hex() if len(parent) == 8 and any(parent) else None,
        name=text(span.name),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == ERROR,
        status_message=text(span.status.message) if span.status.code == ERROR else "",
        attributes=values,
        scope=scope,
        resource=resource,
    )


def _values(items: Iterable[KeyValue], wanted: Wanted) -> dict[str, object]:
    out: dict[str, object] = {}
    for item in items:
        if wanted(item.key):
            value = read_value(item.value)
            if value is not None:
                out[item.key] = value
    return out


def _merge(message: Resource | InstrumentationScope, body: bytes, start: int, end: int, limits: Limits) -> None:
    if end - start > limits.span:
        raise TooMuchError(f"expected a resource and a scope of at most {limits.span} bytes, found {end - start}.")
    try:
        message.MergeFromString(body[start:end])
    except DecodeError as error:
        kind = type(message).__name__
        raise ReadError(f"{_EXPECTED}, found a broken {kind} at byte {start} ({error}). {_TODO}") from None


def _messages(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of each length-delimited field in body[at:end]; others are passed over."""
    while at < end:
        begin = at
        tag, at = _varint(body, at, end)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(body, at, end)
            if at + length > end:
                raise ReadError(
                    f"{_EXPECTED}, found {end - at} bytes where {length} are announced at byte {at}. {_TODO}"
                )
            if tag >> 3 == 0:
                raise ReadError(f"{_EXPECTED}, found field number 0 at byte {begin}. {_TODO}")
            yield tag >> 3, at, at + length
            at += length
        elif wire == 0:
            _, at = _varint(body, at, end)
        elif wire == 1 or wire == 5:
            at += 8 if wire == 1 else 4
            if at > end:
                raise ReadError(f"{_EXPECTED}, found its end in the middle of a number. {_TODO}")
        else:
            raise ReadError(f"{_EXPECTED}, found wire type {wire} at byte {begin}. {_TODO}")


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while at < end:
        byte = body[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            break
    raise ReadError(f"{_EXPECTED}, found an unfinished number at byte {at}. {_TODO}")
