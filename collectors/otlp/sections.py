"""OTLP/protobuf: ExportTraceServiceRequest -> where its spans lie, with what is said of all of them together.

The message is walked down to its spans by hand, so that the count of all of them is known before any is built: a 64 KiB
gzip can hold 32 million empty spans, which decoded at once would take gigabytes. Never here: the spans themselves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from collectors.otlp.attributes import read_value
from collectors.otlp.limits import Limits
from collectors.otlp.spans import TooMuchError, Wanted, text
from spendwatch.errors import ReadError

# Field numbers of opentelemetry/proto/collector/trace/v1/trace_service.proto and trace/v1/trace.proto.
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS, _SCOPE, _SPAN = 1, 1, 2, 1, 2

EXPECTED = "expected an ExportTraceServiceRequest in protobuf"
TODO = "Send OTLP protobuf, or JSON with content-type: application/json."


@dataclass(slots=True)
class Section:
    """The spans of one resource and scope: body[start:end] of each."""

    scope: str
    resource: dict[str, object]
    places: list[tuple[int, int]]


class _Budget:
    """Counts the parts of one request and stops it at the limit."""

    def __init__(self, limits: Limits) -> None:
        self.limit = limits.spans
        self.left = limits.spans

    def take(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMuchError(
                f"expected at most {self.limit} spans in one request, found more. Send smaller batches "
                "(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, or send_batch_max_size of the Collector)."
            )


def sections(body: bytes, *, limits: Limits, resource_wanted: Wanted) -> Iterator[Section]:
    """The request's sections, one by one. Raises ReadError (TooMuchError beyond a limit) when the body is not one."""
    budget = _Budget(limits)
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
            at = group_start
            while at < group_end:
                at = _spans(body, at, group_end, places, budget)
                # What is not a span comes one message at a time.
                for inner, inner_start, inner_end in _messages(body, at, group_end):
                    if inner == _SPAN:
                        budget.take()
                        places.append((inner_start, inner_end))
                    elif inner == _SCOPE:
                        _merge(scope, body, inner_start, inner_end, limits)
                    at = inner_end
                    break
                else:
                    at = group_end
            yield Section(text(scope.name), resource_values, places)


def _spans(body: bytes, at: int, end: int, places: list[tuple[int, int]], budget: _Budget) -> int:
    """Take as many spans as stand one after the other, with lengths of two or three bytes. Returns where they end."""
    before = len(places)
    most = before + max(budget.left, 0)
    while at < end - 4 and body[at] == 0x12:
        low, high = body[at + 1], body[at + 2]
        if low < 0x80:
            start, size = at + 2, low
        elif high < 0x80:
            start, size = at + 3, low & 0x7F | high << 7
        else:
            third = body[at + 3]
            start, size = at + 4, low & 0x7F | (high & 0x7F) << 7 | third << 14
            if third >= 0x80:
                break
        if start + size > end or len(places) >= most:
            break
        at = start + size
        places.append((start, at))
    budget.take(len(places) - before)
    return at


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
        raise ReadError(f"{EXPECTED}, found a broken {kind} at byte {start} ({error}). {TODO}") from None


def _messages(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of each length-delimited field in body[at:end]; others are passed over."""
    while at < end:
        begin = at
        tag, at = _varint(body, at, end)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(body, at, end)
            if at + length > end:
                raise ReadError(f"{EXPECTED}, found {end - at} bytes where {length} are announced at byte {at}. {TODO}")
            if tag >> 3 == 0:
                raise ReadError(f"{EXPECTED}, found field number 0 at byte {begin}. {TODO}")
            yield tag >> 3, at, at + length
            at += length
        elif wire == 0:
            _, at = _varint(body, at, end)
        elif wire == 1 or wire == 5:
            at += 8 if wire == 1 else 4
            if at > end:
                raise ReadError(f"{EXPECTED}, found its end in the middle of a number. {TODO}")
        else:
            raise ReadError(f"{EXPECTED}, found wire type {wire} at byte {begin}. {TODO}")


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
    raise ReadError(f"{EXPECTED}, found an unfinished number at byte {at}. {TODO}")
