"""OTLP's Span as the collector decodes it: its attributes left as bytes, and nothing of what is never read.

The messages of opentelemetry/proto/trace/v1/trace.proto with fewer fields, so that a span is one object instead of a
hundred. What is not listed (events with their content, links, trace state) is passed over.
"""

from typing import Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto

ERROR = 2
"""Status.code of a span that failed."""


class WireStatus(Protocol):
    """trace.v1.Status."""

    code: int
    message: str


class WireSpan(Protocol):
    """trace.v1.Span; attributes are encoded KeyValues."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    attributes: list[bytes]
    status: WireStatus

    @staticmethod
    def FromString(data: bytes, /) -> "WireSpan":  # noqa: N802  # protobuf's name
        """Decode; raises google.protobuf's DecodeError."""
        raise NotImplementedError


def _span_class() -> type[WireSpan]:
    file = descriptor_pb2.FileDescriptorProto(name="spendwatch/wire.proto", package="spendwatch.wire", syntax="proto3")
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=3, type=_Field.TYPE_INT32, label=_Field.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    span = file.message_type.add(name="Span")
    for name, number, kind in (
        ("trace_id", 1, _Field.TYPE_BYTES),
        ("span_id", 2, _Field.TYPE_BYTES),
        ("parent_span_id", 4, _Field.TYPE_BYTES),
        ("name", 5, _Field.TYPE_STRING),
        ("start_time_unix_nano", 7, _Field.TYPE_FIXED64),
        ("end_time_unix_nano", 8, _Field.TYPE_FIXED64),
    ):
        span.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)
    span.field.add(name="attributes", number=9, type=_Field.TYPE_BYTES, label=_Field.LABEL_REPEATED)
    span.field.add(
        name="status",
        number=15,
        type=_Field.TYPE_MESSAGE,
        type_name=".spendwatch.wire.Status",
        label=_Field.LABEL_OPTIONAL,
    )
    # A pool of its own: names of ours can't meet those of an app's in the process-wide one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName("spendwatch.wire.Span"))
    return cast("type[WireSpan]", found)


SPAN = _span_class()
