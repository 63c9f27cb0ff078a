"""OTLP/JSON: ExportTraceServiceRequest -> spans.

Read as leniently as senders write it: 64-bit integers as strings or numbers, ids as hex in either case or as base64,
enums as numbers or names, lowerCamelCase or proto names, null for what is missing. Each span is decoded alone, like
in protobuf. Never here: what a span means.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

from collectors.otlp.limits import Limits
from collectors.otlp.spans import Rejected, Span, TooMuchError, Wanted, number, text
from spendwatch.errors import ReadError

_EXPECTED = 'expected an ExportTraceServiceRequest in JSON ({"resourceSpans": [...]})'
_TODO = "See opentelemetry.io/docs/specs/otlp, or send protobuf with content-type: application/x-protobuf."


class _ScopeSpans(msgspec.Struct):
    scope: msgspec.Raw = msgspec.Raw(b"null")
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"null")
    scope_spans: list[_ScopeSpans] | None = None
    camel: list[_ScopeSpans] | None = msgspec.field(default=None, name="scopeSpans")


class _Request(msgspec.Struct):
    resource_spans: list[_ResourceSpans] | None = None
    camel: list[_ResourceSpans] | None = msgspec.field(default=None, name="resourceSpans")


_decode = msgspec.json.Decoder(_Request).decode


def read(body: bytes, *, limits: Limits, wanted: Wanted, resource_wanted: Wanted) -> Iterator[Span | Rejected]:
    """The spans of a request, one by one. Raises ReadError (TooMuchError beyond a limit) when the body is not one."""
    if body.count(b",") + body.count(b"{") > limits.json_items:
        raise TooMuchError(
            f"expected at most {limits.json_items} values in one request, found more. Send smaller batches."
        )
    try:
        request = _decode(body)
        count = 0
        for group in request.camel or request.resource_spans or ():
            resource_values = _attributes(_dict(group.resource), resource_wanted)
            for inner in group.camel or group.scope_spans or ():
                name = _dict(inner.scope).get("name")
                scope = text(name) if isinstance(name, str) else ""
                for raw in inner.spans or ():
                    count += 1
                    if count > limits.spans:
                        raise TooMuchError(
                            f"expected at most {limits.spans} spans in one request, found more. Send smaller batches."
                        )
                    size = memoryview(raw).nbytes
                    if size > limits.span:
                        yield Rejected(f"a span of {size} bytes, expected at most {limits.span}")
                        continue
                    yield _span(msgspec.json.decode(raw), scope, resource_values, wanted)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ReadError(f"{_EXPECTED}, found: {error}. {_TODO}") from None


def _span(span: Any, scope: str, resource: dict[str, object], wanted: Wanted) -> Span | Rejected:
    if not isinstance(span, dict):
        return Rejected(f"a span that is a JSON {type(span).__name__}, expected an object")
    status = _object(span.get("status"))
    name = span.get("name")
    failed = status.get("code") in (2, "2", "STATUS_CODE_ERROR")
    message = status.get("message")
    parent = _id(_get(span, "parentSpanId", "parent_span_id"), 8)
    return Span(
        trace_id=_id(_get(span, "traceId", "trace_id"), 16),
        span_id=_id(_get(span, "spanId", "span_id"), 8),
        parent_span_id=parent if parent.strip("0") else None,
        name=text(name) if isinstance(name, str) else "",
        start_ns=_integer(_get(span, "startTimeUnixNano", "start_time_unix_nano")) or 0,
        end_ns=_integer(_get(span, "endTimeUnixNano", "end_time_unix_nano")) or 0,
        failed=failed,
        status_message=text(message) if failed and isinstance(message, str) else "",
        attributes=_attributes(span, wanted),
        scope=scope,
        resource=resource,
    )


def _dict(raw: msgspec.Raw) -> dict[str, Any]:
    return _object(msgspec.json.decode(raw))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _get(item: dict[str, Any], camel: str, snake: str) -> Any:
    value = item.get(camel)
    return item.get(snake) if value is None else value


def _attributes(item: dict[str, Any], wanted: Wanted) -> dict[str, object]:
    out: dict[str, object] = {}
    pairs = item.get("attributes")
    for pair in pairs if isinstance(pairs, list) else ():
        if not isinstance(pair, dict):
            continue
        key = pair.get("key")
        if isinstance(key, str) and wanted(key):
            value = _value(_object(pair.get("value")))
            if value is not None:
                out[key] = value
    return out


def _value(value: dict[str, Any]) -> object:
    """The value as Python has it; None for what no attribute of ours is (maps, bytes, nested arrays)."""
    for kind, item in value.items():
        if item is None:
            continue
        if kind in ("stringValue", "string_value"):
            return text(item) if isinstance(item, str) else None
        if kind in ("intValue", "int_value"):
            return _integer(item)
        if kind in ("doubleValue", "double_value"):
            return _double(item)
        if kind in ("boolValue", "bool_value"):
            return item if isinstance(item, bool) else None
        if kind in ("arrayValue", "array_value"):
            items = _object(item).get("values")
            scalars = (
                _value(entry)
                for entry in (items if isinstance(items, list) else ())
                if isinstance(entry, dict) and "arrayValue" not in entry and "array_value" not in entry
            )
            return [scalar for scalar in scalars if scalar is not None]
    return None


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    # 20 digits hold every 64-bit integer; int() of a longer text is slow on purpose of whoever wrote it.
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError:
            return None
    return None


def _double(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return number(float(value))
    except (ValueError, OverflowError):
        return None


def _id(value: object, size: int) -> str:
    """The id as lower-case hex; "" when it is missing or not an id of `size` bytes."""
    if not isinstance(value, str):
        return ""
    try:
        data = bytes.fromhex(value) if len(value) == 2 * size else base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return ""
    return data.hex() if len(data) == size else ""
