"""An LLMCall as OTLP protobuf, in pieces that can be stored and joined again without being parsed.

A stored record is a ScopeSpans message that holds one span only; protobuf messages joined end to end are merged, so a
batch is a resource head, a scope head and any number of records. The bytes are put together here, not by a protobuf
library, which an app would pay for in start-up and a call in time; the attributes that many calls share are kept
encoded. Invariant: body(head, records) parses as one ExportTraceServiceRequest with every span in order, and a record
is byte for byte what that library would write. Never here: I/O, attribute names.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from struct import pack
from typing import Any

from spendwatch import semconv
from spendwatch.calls import CallStatus, LLMCall, Tags
from spendwatch.version import __version__

# opentelemetry.proto.trace.v1: Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_ERROR.
_CLIENT = 3
ERROR = 2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_KEPT = 512
_SHORT = 128

# Field numbers of opentelemetry-proto 1.x, as the tags that precede them: number << 3 | wire type.
_TRACE_ID = b"\x0a\x10"
_SPAN_ID = b"\x12\x08"
_PARENT = b"\x22\x08"
_NAME = b"\x2a"
_KIND_AND_START = b"\x30" + bytes((_CLIENT,)) + b"\x39"
_END = b"\x41"
_ATTRIBUTE = b"\x4a"
_STATUS = b"\x7a\x02\x18" + bytes((ERROR,))
_SPANS = b"\x12"


def unix_nano(moment: datetime) -> int:
    """Nanoseconds since 1970, exact for a datetime's microseconds."""
    since = moment - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def record(call: LLMCall) -> bytes:
    """The call as one span, ready to be stored and joined."""
    start = unix_nano(call.started_at)
    name = semconv.span_name(call).encode("utf-8", "replace")
    parts = [
        _TRACE_ID,
        bytes.fromhex(call.trace_id),
        _SPAN_ID,
        bytes.fromhex(call.span_id),
        (_PARENT + bytes.fromhex(call.parent_span_id)) if call.parent_span_id is not None else b"",
        _NAME,
        _varint(len(name)),
        name,
        _KIND_AND_START,
        pack("<Q", start),
        _END,
        pack("<Q", start + call.duration_us * 1_000),
        _shared(call),
        _tagged(call.tags),
    ]
    parts += _attributes(semconv.own_attributes(call))
    if call.status is CallStatus.ERROR:
        parts.append(_STATUS)
    span = b"".join(parts)
    return _SPANS + _varint(len(span)) + span


_kept: dict[Any, bytes] = {}
_kept_tags: tuple[Tags, bytes] = (Tags(), b"")


def _shared(call: LLMCall) -> bytes:
    key = semconv.shared_key(call)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= _MAX_KEPT:
            _kept.clear()
        found = _kept[key] = b"".join(_attributes(semconv.shared_attributes(call)))
    return found


def _tagged(tags: Tags) -> bytes:
    global _kept_tags
    # One pair, replaced whole: another thread sees the old one or the new one.
    of, found = _kept_tags
    if of is not tags:
        found = b"".join(_attributes(semconv.tag_attributes(tags)))
        _kept_tags = (tags, found)
    return found


def _attributes(attributes: Mapping[str, semconv.AttributeValue]) -> list[bytes]:
    """Span attributes, each a KeyValue, in pieces."""
    parts: list[bytes] = []
    add = parts.append
    for name, value in attributes.items():
        kind = type(value)
        if kind is str:
            data = value.encode("utf-8", "replace")  # type: ignore[union-attr]
            size = len(data)
            if size < _SHORT:
                add(_text_prefix.get((name, size)) or _new_prefix(_text_prefix, name, size, b"\x0a"))
            else:
                add(_key_value(name, 1 + len(_varint(size)) + size) + b"\x0a" + _varint(size))
            add(data)
        elif kind is int:
            data = _varint(value)  # type: ignore[arg-type]
            size = len(data)
            add(_int_prefix.get((name, size)) or _new_prefix(_int_prefix, name, size, b"\x18"))
            add(data)
        elif kind is bool:
            add(_key_value(name, 2) + (b"\x10\x01" if value else b"\x10\x00"))
        elif kind is float:
            add(_key_value(name, 9) + b"\x21" + pack("<d", value))
        elif isinstance(value, str):
            parts += _attributes({name: str(value)})
        else:
            texts = b"".join(_array_item(text) for text in value)  # type: ignore[union-attr]
            add(_key_value(name, 1 + len(_varint(len(texts))) + len(texts)) + b"\x2a" + _varint(len(texts)))
            add(texts)
    return parts


# (attribute, length of its value) -> all that stands before the value.
_text_prefix: dict[tuple[str, int], bytes] = {}
_int_prefix: dict[tuple[str, int], bytes] = {}


def _new_prefix(kept: dict[tuple[str, int], bytes], name: str, size: int, tag: bytes) -> bytes:
    if tag == b"\x0a":
        made = _key_value(name, 2 + size) + tag + bytes((size,))
    else:
        made = _key_value(name, 1 + size) + tag
    # Names are few, but for those that an app makes up.
    if len(kept) >= 8 * _MAX_KEPT:
        kept.clear()
    kept[name, size] = made
    return made


def _key_value(name: str, size: int) -> bytes:
    """An attribute up to the AnyValue of so many bytes."""
    key = name.encode("utf-8", "replace")
    inside = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(size)
    return _ATTRIBUTE + _varint(len(inside) + size) + inside


def _array_item(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    item = b"\x0a" + _varint(len(data)) + data
    return b"\x0a" + _varint(len(item)) + item


def head(resource: Mapping[str, str]) -> bytes:
    """The resource of a process, as the first record of its segment. Without spans."""
    # Resource.attributes has number 1, a span's attributes 9: the same KeyValue behind another tag.
    texts = (_attribute_of_resource(name, value) for name, value in resource.items())
    attributes = b"".join(texts)
    return b"\x0a" + _varint(len(attributes)) + attributes


def _attribute_of_resource(name: str, value: str) -> bytes:
    return b"\x0a" + b"".join(_attributes({name: value}))[1:]


def _scope() -> bytes:
    name, version, schema = semconv.SCOPE_NAME.encode(), __version__.encode(), semconv.SCHEMA_URL.encode()
    scope = b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(len(version)) + version
    return b"\x0a" + _varint(len(scope)) + scope + b"\x1a" + _varint(len(schema)) + schema


def body(resource_head: bytes, records: Sequence[bytes]) -> bytes:
    """One ExportTraceServiceRequest of the records, all of one resource."""
    scope = _SCOPE + b"".join(records)
    # Field 2 of ResourceSpans is scope_spans, field 1 of the request resource_spans; both length-delimited (type 2).
    spans = resource_head + b"\x12" + _varint(len(scope)) + scope
    return b"\x0a" + _varint(len(spans)) + spans


def rejected(answer: bytes) -> tuple[int, str]:
    """How many spans a 2xx answer says it did not take, and why."""
    if not answer:
        return 0, ""
    # Hardly ever needed, so its 15 ms are not spent before.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        response = ExportTraceServiceResponse.FromString(answer)
    except Exception:  # noqa: BLE001  # an answer in another format (a proxy's page) still means accepted
        return 0, ""
    return response.partial_success.rejected_spans, response.partial_success.error_message


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE[value] if value >= 0 else _varint(value + (1 << 64))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE = tuple(bytes((n,)) for n in range(0x80))
_SCOPE = _scope()
