"""OTLP requests for tests, in both encodings, from the same plain description of spans."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from spendwatch import semconv
from spendwatch.calls import LLMCall

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ids = count(1)


def any_value(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    assert isinstance(value, list | tuple)
    return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))


def pairs(attributes: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span(
    name: str = "chat gpt-4o-mini",
    *,
    attributes: Mapping[str, object],
    at: datetime | None = None,
    duration_us: int = 1_500_000,
    trace_id: str | None = None,
    span_id: str | None = None,
    parent: str | None = None,
    error: bool = False,
) -> trace_pb2.Span:
    number = next(_ids)
    at = at or datetime.now(UTC)
    start = (at - EPOCH) // (datetime.resolution) * 1000
    return trace_pb2.Span(
        trace_id=bytes.fromhex(trace_id or f"{number:032x}"),
        span_id=bytes.fromhex(span_id or f"{number:016x}"),
        parent_span_id=bytes.fromhex(parent or ""),
        name=name,
        kind=trace_pb2.Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + duration_us * 1000,
        attributes=pairs(attributes),
        status=trace_pb2.Status(code=2 if error else 0),
    )


def request(
    spans: Sequence[trace_pb2.Span], *, scope: str = "", resource: Mapping[str, object] | None = None
) -> ExportTraceServiceRequest:
    out = ExportTraceServiceRequest()
    group = out.resource_spans.add()
    group.resource.attributes.extend(pairs(resource or {"service.name": "checkout"}))
    inner = group.scope_spans.add()
    inner.scope.name = scope
    inner.spans.extend(spans)
    return out


def own_span(call: LLMCall) -> trace_pb2.Span:
    """The span that the SDK sends for a call."""
    return span(
        semconv.span_name(call),
        attributes=semconv.to_attributes(call),
        at=call.started_at,
        duration_us=call.duration_us,
        trace_id=call.trace_id,
        span_id=call.span_id,
        parent=call.parent_span_id,
    )


def own_request(calls: Sequence[LLMCall], *, service: str | None = "checkout") -> bytes:
    resource = {"service.name": service} if service else {"telemetry.sdk.language": "python"}
    return request([own_span(call) for call in calls], scope="spendwatch", resource=resource).SerializeToString()


def as_json(message: ExportTraceServiceRequest) -> dict[str, Any]:
    """The request in OTLP's JSON: ids in hex, 64-bit integers as strings."""

    def value(item: AnyValue) -> dict[str, Any]:
        kind = item.WhichOneof("value")
        if kind == "array_value":
            return {"arrayValue": {"values": [value(inner) for inner in item.array_value.values]}}
        if kind == "int_value":
            return {"intValue": str(item.int_value)}
        if kind is None:
            return {}
        found = getattr(item, str(kind))
        return {f"{str(kind).removesuffix('_value')}Value": found}

    def attributes(items: Any) -> list[dict[str, Any]]:
        return [{"key": item.key, "value": value(item.value)} for item in items]

    return {
        "resourceSpans": [
            {
                "resource": {"attributes": attributes(group.resource.attributes)},
                "scopeSpans": [
                    {
                        "scope": {"name": inner.scope.name},
                        "spans": [
                            {
                                "traceId": item.trace_id.hex(),
                                "spanId": item.span_id.hex(),
                                "parentSpanId": item.parent_span_id.hex(),
                                "name": item.name,
                                "kind": item.kind,
                                "startTimeUnixNano": str(item.start_time_unix_nano),
                                "endTimeUnixNano": str(item.end_time_unix_nano),
                                "attributes": attributes(item.attributes),
                                "status": {"code": item.status.code, "message": item.status.message},
                            }
                            for item in inner.spans
                        ],
                    }
                    for inner in group.scope_spans
                ],
            }
            for group in message.resource_spans
        ]
    }


def json_body(message: ExportTraceServiceRequest) -> bytes:
    return json.dumps(as_json(message)).encode()
