"""An LLMCall as OTLP protobuf, in pieces that can be stored and joined again without being parsed.

A stored record is a ScopeSpans message that holds one span only; protobuf messages joined end to end are merged, so a
batch is a resource head, a scope head and any number of records. Invariant: body(head, records) parses as one
ExportTraceServiceRequest with every span in order. Never here: I/O.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from spendwatch import semconv
from spendwatch.calls import CallStatus, LLMCall
from spendwatch.version import __version__

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLIENT = Span.SPAN_KIND_CLIENT
ERROR = Status.STATUS_CODE_ERROR


def unix_nano(moment: datetime) -> int:
    """Nanoseconds since 1970, exact for a datetime's microseconds."""
    since = moment - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def record(call: LLMCall) -> bytes:
    """The call as one span, ready to be stored and joined."""
    holder = ScopeSpans()
    span = holder.spans.add()
    span.trace_id = bytes.fromhex(call.trace_id)
    span.span_id = bytes.fromhex(call.span_id)
    if call.parent_span_id is not None:
        span.parent_span_id = bytes.fromhex(call.parent_span_id)
    span.name = semconv.span_name(call)
    span.kind = _CLIENT
    start = unix_nano(call.started_at)
    span.start_time_unix_nano = start
    span.end_time_unix_nano = start + call.duration_us * 1_000
    add = span.attributes.add
    for name, value in semconv.to_attributes(call).items():
        item = add()
        item.key = name
        if isinstance(value, str):
            item.value.string_value = value
        elif isinstance(value, bool):
            item.value.bool_value = value
        elif isinstance(value, int):
            item.value.int_value = value
        elif isinstance(value, float):
            item.value.double_value = value
        else:
            values = item.value.array_value.values
            for text in value:
                values.add().string_value = text
    if call.status is CallStatus.ERROR:
        span.status.code = ERROR
    return holder.SerializeToString()


def head(resource: Mapping[str, str]) -> bytes:
    """The resource of a process, as the first record of its segment. Without spans."""
    message = ResourceSpans(resource=Resource())
    for name, value in resource.items():
        item = message.resource.attributes.add()
        item.key = name
        item.value.string_value = value
    return message.SerializeToString()


_SCOPE = ScopeSpans(
    scope=InstrumentationScope(name=semconv.SCOPE_NAME, version=__version__), schema_url=semconv.SCHEMA_URL
).SerializeToString()


def body(resource_head: bytes, records: Sequence[bytes]) -> bytes:
    """One ExportTraceServiceRequest of the records, all of one resource."""
    scope = _SCOPE + b"".join(records)
    # Field 2 of ResourceSpans is scope_spans, field 1 of the request resource_spans; both length-delimited (type 2).
    spans = resource_head + b"\x12" + _varint(len(scope)) + scope
    return b"\x0a" + _varint(len(spans)) + spans


def rejected(answer: bytes) -> tuple[int, str]:
    """How many spans a 2xx answer says it did not take, and why."""
    try:
        response = ExportTraceServiceResponse.FromString(answer)
    except Exception:  # noqa: BLE001  # an answer in another format (a proxy's page) still means accepted
        return 0, ""
    return response.partial_success.rejected_spans, response.partial_success.error_message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
