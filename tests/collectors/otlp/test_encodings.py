"""Protobuf and JSON bodies: read as senders write them, refused with a reason when they are not what they say."""

import base64
import contextlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from collectors.otlp import dialects, otlp_json, protobuf
from collectors.otlp.limits import Limits
from collectors.otlp.spans import Rejected, Span, TooMuchError
from spendwatch.errors import ReadError
from tests.collectors.otlp import otlp

ATTRIBUTES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.usage.input_tokens": 2**40,
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.request.stream": True,
    "gen_ai.response.finish_reasons": ["stop", "length"],
}


def read(reader: Callable[..., Iterator[Span | Rejected]], body: bytes, **limits: int) -> list[Span | Rejected]:
    return list(
        reader(
            body,
            limits=replace(Limits(), **limits),
            wanted=dialects.wanted,
            resource_wanted=dialects.resource_wanted,
        )
    )


def one(body: bytes) -> Span:
    (found,) = read(otlp_json.read, body)
    assert isinstance(found, Span), found
    return found


def document(**changes: Any) -> dict[str, Any]:
    """An OTLP/JSON request with one span, some of its members replaced."""
    out = otlp.as_json(otlp.request([otlp.span(attributes=ATTRIBUTES, parent="00f067aa0ba902b7")]))
    out["resourceSpans"][0]["scopeSpans"][0]["spans"][0].update(changes)
    return out


def test_both_encodings_give_the_same_spans() -> None:
    message = otlp.request(
        [otlp.span(attributes=ATTRIBUTES, parent="00f067aa0ba902b7", error=True), otlp.span(attributes={})], scope="s"
    )
    found = read(protobuf.read, message.SerializeToString())
    assert found == read(otlp_json.read, otlp.json_body(message))
    assert len(found) == 2
    first = found[0]
    assert isinstance(first, Span)
    assert first.attributes == ATTRIBUTES
    assert (first.failed, first.scope, first.resource) == (True, "s", {"service.name": "checkout"})
    assert first.parent_span_id == "00f067aa0ba902b7"


def test_an_empty_request_is_a_request() -> None:
    assert read(protobuf.read, b"") == []
    assert read(otlp_json.read, b"{}") == []
    assert read(otlp_json.read, b'{"resourceSpans": [], "unknown": 1}') == []


def test_content_is_passed_over_whatever_its_name() -> None:
    attributes = {
        **ATTRIBUTES,
        "gen_ai.input.messages": "secret",
        "gen_ai.prompt.0.content": "secret",
        "llm.input_messages.0.message.content": "secret",
        "ai.prompt": "secret",
        "some.new.name": "secret",
    }
    message = otlp.request([otlp.span(attributes=attributes)], resource={"service.name": "a", "process.args": "secret"})
    for found in (
        read(protobuf.read, message.SerializeToString()),
        read(otlp_json.read, otlp.json_body(message)),
    ):
        assert "secret" not in repr(found)
        assert isinstance(found[0], Span)
        assert found[0].attributes == ATTRIBUTES


@pytest.mark.parametrize(
    ("changes", "member", "expected"),
    [
        ({"startTimeUnixNano": 1763769600000000001}, "start_ns", 1763769600000000001),
        ({"startTimeUnixNano": "1763769600000000001"}, "start_ns", 1763769600000000001),
        ({"startTimeUnixNano": None, "start_time_unix_nano": "5"}, "start_ns", 5),
        ({"endTimeUnixNano": None}, "end_ns", 0),
        ({"endTimeUnixNano": "soon"}, "end_ns", 0),
        ({"traceId": "0AF7651916CD43DD8448EB211C80319C"}, "trace_id", "0af7651916cd43dd8448eb211c80319c"),
        (
            {"traceId": base64.b64encode(bytes.fromhex("0af7651916cd43dd8448eb211c80319c")).decode()},
            "trace_id",
            "0af7651916cd43dd8448eb211c80319c",
        ),
        ({"traceId": "zz"}, "trace_id", ""),
        ({"traceId": "0a f7 65 19 16 cd 43 dd 84 48 eb"}, "trace_id", ""),
        ({"traceId": 5}, "trace_id", ""),
        ({"parentSpanId": ""}, "parent_span_id", None),
        ({"parentSpanId": "0000000000000000"}, "parent_span_id", None),
        ({"status": {"code": "STATUS_CODE_ERROR"}}, "failed", True),
        ({"status": {"code": 2}}, "failed", True),
        ({"status": {}}, "failed", False),
        ({"status": None}, "failed", False),
        ({"kind": "SPAN_KIND_CLIENT"}, "failed", False),
        ({"name": None}, "name", ""),
        ({"attributes": None}, "attributes", {}),
    ],
)
def test_json_is_read_as_senders_write_it(changes: dict[str, Any], member: str, expected: object) -> None:
    assert getattr(one(json.dumps(document(**changes)).encode()), member) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"intValue": "7"}, 7),
        ({"intValue": 7}, 7),
        ({"intValue": 7.0}, 7),
        ({"int_value": "7"}, 7),
        ({"intValue": "9" * 5000}, None),
        ({"intValue": True}, None),
        ({"doubleValue": 0.5}, 0.5),
        ({"doubleValue": 1}, 1.0),
        ({"doubleValue": "NaN"}, None),
        ({"doubleValue": "Infinity"}, None),
        ({"stringValue": None, "intValue": "7"}, 7),
        ({"stringValue": 5}, None),
        ({"stringValue": "x" * 5000}, "x" * 1024),
        ({"arrayValue": {"values": [{"stringValue": "a"}, {"kvlistValue": {}}, {"arrayValue": {}}]}}, ["a"]),
        ({"arrayValue": {}}, []),
        ({"kvlistValue": {"values": []}}, None),
        ({"bytesValue": "AAAA"}, None),
        ({}, None),
        (None, None),
        ("bare", None),
    ],
)
def test_json_values_are_read_as_senders_write_them(value: object, expected: object) -> None:
    body = json.dumps(document(attributes=[{"key": "gen_ai.request.model", "value": value}])).encode()
    assert one(body).attributes.get("gen_ai.request.model") == expected


def test_proto_names_are_read_in_json_too() -> None:
    spans = [{"trace_id": "ab" * 16, "span_id": "cd" * 8, "attributes": []}]
    found = one(json.dumps({"resource_spans": [{"scope_spans": [{"spans": spans}]}]}).encode())
    assert (found.trace_id, found.span_id) == ("ab" * 16, "cd" * 8)


def test_half_a_character_in_json_does_not_get_in() -> None:
    body = json.dumps(document()).replace('"stringValue": "chat"', '"stringValue": "a\\ud800b"').encode()
    try:
        found = one(body)
    except ReadError:
        return
    str(found.attributes["gen_ai.operation.name"]).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"null",
        b'{"resourceSpans": {}}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": 5}]}]}',
        b'{"resourceSpans": [1]}',
        b'{"resourceSpans": ' + b"[" * 100_000,
        b"\x0a\x05hello",
        b"\xff\xfe{}",
    ],
)
def test_a_body_that_is_not_otlp_json_says_so(body: bytes) -> None:
    with pytest.raises(ReadError, match="expected an ExportTraceServiceRequest in JSON"):
        read(otlp_json.read, body)


def test_a_span_that_is_no_object_is_rejected_alone() -> None:
    out = document()
    out["resourceSpans"][0]["scopeSpans"][0]["spans"] += [5, None]
    found = read(otlp_json.read, json.dumps(out).encode())
    assert [type(item) for item in found] == [Span, Rejected, Rejected]


WHOLE = otlp.request([otlp.span(attributes=ATTRIBUTES), otlp.span(attributes=ATTRIBUTES)]).SerializeToString()


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceSpans": []}',
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x80",
        b"\x0a\x05\x12",
        b"\x0b\x0c",
        b"\x09\x01",
        b"\x02\x00",
        WHOLE[:-1],
        WHOLE[:40],
        WHOLE + b"\x0a",
    ],
)
def test_a_body_that_is_not_otlp_protobuf_says_so(body: bytes) -> None:
    with pytest.raises(ReadError, match="expected an ExportTraceServiceRequest in protobuf"):
        read(protobuf.read, body)


def test_unknown_fields_are_passed_over() -> None:
    extra = b"\x10\x05" + b"\x1d\0\0\0\0" + b"\x21" + bytes(8) + b"\x7a\x03abc"
    assert read(protobuf.read, extra + WHOLE + extra) == read(protobuf.read, WHOLE)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(body: bytes) -> None:
    for reader in (protobuf.read, otlp_json.read):
        with contextlib.suppress(ReadError):
            read(reader, body)


@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_no_damage_breaks_the_reader(at: int, byte: int) -> None:
    damaged = WHOLE[:at] + bytes((byte,)) + WHOLE[at + 1 :]
    with contextlib.suppress(ReadError):
        read(protobuf.read, damaged)


def test_more_spans_than_allowed_are_too_much() -> None:
    message = otlp.request([otlp.span(attributes={}) for _ in range(5)])
    assert len(read(protobuf.read, message.SerializeToString(), spans=7)) == 5
    with pytest.raises(TooMuchError, match="at most 6 spans"):
        read(protobuf.read, message.SerializeToString(), spans=6)
    assert len(read(otlp_json.read, otlp.json_body(message), spans=5)) == 5
    with pytest.raises(TooMuchError, match="at most 4 spans"):
        read(otlp_json.read, otlp.json_body(message), spans=4)
    with pytest.raises(TooMuchError, match="at most 50 values"):
        read(otlp_json.read, otlp.json_body(message), json_items=50)


def test_millions_of_empty_spans_in_a_small_body_cost_no_memory() -> None:
    spans = b"\x12\x00" * 4_000_000
    scope = b"\x12" + _length(spans) + spans
    body = b"\x0a" + _length(scope) + scope
    tracemalloc.start()
    try:
        with pytest.raises(TooMuchError):
            read(protobuf.read, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


def test_a_span_that_is_too_large_is_rejected_alone() -> None:
    large = otlp.span(attributes={"gen_ai.input.messages": "x" * 5000})
    message = otlp.request([otlp.span(attributes=ATTRIBUTES), large])
    for found in (
        read(protobuf.read, message.SerializeToString(), span=4000),
        read(otlp_json.read, otlp.json_body(message), span=4000),
    ):
        assert [type(item) for item in found] == [Span, Rejected]
        assert "expected at most 4000" in str(found[1])


def test_a_resource_after_its_spans_counts_for_them() -> None:
    message = otlp.request([otlp.span(attributes={})])
    resource = message.resource_spans[0].resource.SerializeToString()
    scope = message.resource_spans[0].scope_spans[0].SerializeToString()
    group = b"\x12" + _length(scope) + scope + b"\x0a" + _length(resource) + resource
    (found,) = read(protobuf.read, b"\x0a" + _length(group) + group)
    assert isinstance(found, Span)
    assert found.resource == {"service.name": "checkout"}


def _length(data: bytes) -> bytes:
    value, out = len(data), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def test_the_walk_agrees_with_protobufs_own_decoder() -> None:
    decoded = trace_pb2.TracesData.FromString(WHOLE)
    found = read(protobuf.read, WHOLE)
    spans = decoded.resource_spans[0].scope_spans[0].spans
    assert [span.span_id.hex() for span in spans] == [span.span_id for span in found if isinstance(span, Span)]
