"""Records joined without being parsed are one OTLP request, and the same calls come out at the other end."""

from decimal import Decimal

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from spendwatch import otlp, semconv
from spendwatch.calls import CallStatus, CostBasis, Fingerprint, LLMCall, Tags, TokenUsage, ToolFingerprint
from spendwatch.spans import readable_spans
from tests.sdk.calls import make_call

RESOURCE = {"service.name": "shop", "deployment.environment.name": "prod"}


def body(*calls: LLMCall) -> bytes:
    return otlp.body(otlp.head(RESOURCE), [otlp.record(call) for call in calls])


def test_a_body_parses_as_one_request_with_every_span_in_order() -> None:
    calls = [make_call(n, request_model="m" * n) for n in range(1, 300)]
    request = ExportTraceServiceRequest.FromString(body(*calls))
    (resource,) = request.resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes} == RESOURCE
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.schema_url) == ("spendwatch", semconv.SCHEMA_URL)
    assert [span.span_id.hex() for span in scope.spans] == [call.span_id for call in calls]


def test_a_span_has_the_calls_times_and_kind() -> None:
    call = make_call(parent_span_id="00000000000000ff", status=CallStatus.ERROR, error_type="x")
    span = ExportTraceServiceRequest.FromString(body(call)).resource_spans[0].scope_spans[0].spans[0]
    assert span.name == "chat gpt-4o-mini"
    assert span.kind == span.SPAN_KIND_CLIENT
    assert span.start_time_unix_nano == 1_795_521_600_123_456_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_234_567_000
    assert span.parent_span_id.hex() == "00000000000000ff"
    assert span.status.code == span.status.STATUS_CODE_ERROR


def test_the_call_that_was_recorded_is_the_call_that_arrives() -> None:
    call = make_call(
        streamed=True,
        time_to_first_chunk_us=250_000,
        finish_reasons=("stop", "length"),
        is_byok=False,
        tags=Tags(team="search", extra={"x": "ü"}),
        attributes={"choice_count": "2"},
        service_name="shop",
    )
    (span,) = readable_spans(body(call))
    assert span.context is not None
    assert span.start_time is not None
    arrived = semconv.from_attributes(
        dict(span.attributes or {}),
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        parent_span_id=None,
        started_at=call.started_at,
        duration_us=call.duration_us,
        resource=dict(span.resource.attributes),
    )
    assert arrived == call


def test_attributes_keep_their_types() -> None:
    (span,) = readable_spans(body(make_call(streamed=True, time_to_first_chunk_us=1_500_000, finish_reasons=("stop",))))
    found = dict(span.attributes or {})
    assert found["gen_ai.usage.input_tokens"] == 1231
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] == 1.5
    assert found["gen_ai.response.finish_reasons"] == ("stop",)
    assert found["spendwatch.cost.reported"] == "0.0021344"


def by_the_library(call: LLMCall) -> bytes:
    holder = ScopeSpans()
    span = holder.spans.add(
        trace_id=bytes.fromhex(call.trace_id),
        span_id=bytes.fromhex(call.span_id),
        name=semconv.span_name(call),
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=otlp.unix_nano(call.started_at),
        end_time_unix_nano=otlp.unix_nano(call.started_at) + call.duration_us * 1_000,
    )
    if call.parent_span_id is not None:
        span.parent_span_id = bytes.fromhex(call.parent_span_id)
    for name, value in semconv.to_attributes(call).items():
        item = span.attributes.add(key=name).value
        if isinstance(value, str):
            item.string_value = value
        elif isinstance(value, bool):
            item.bool_value = value
        elif isinstance(value, int):
            item.int_value = value
        elif isinstance(value, float):
            item.double_value = value
        else:
            for text in value:
                item.array_value.values.add().string_value = text
    if call.status is CallStatus.ERROR:
        span.status.code = Status.STATUS_CODE_ERROR
    return holder.SerializeToString()


HEX = "00000000000000ff"
FULL = Fingerprint(
    system=HEX, prefix=HEX, last=HEX, last_role="user", last_simhash=HEX, last_length=70_000, last_is_error=False,
    last_normalised=HEX, messages=0, response=HEX, response_simhash=HEX, response_length=1 << 40,
    tools=(ToolFingerprint(name="a:b", arguments=HEX, arguments_simhash=HEX),),
)  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        make_call(),
        make_call(request_model=None, response_id=None, reported_cost=None, usage=TokenUsage()),
        make_call(parent_span_id=HEX, status=CallStatus.ERROR, error_type="x" * 200, server_port=443, http_status=500),
        make_call(error_type="x" * 127, response_id="x" * 128, server_address="ü" * 64, response_model="x" * 20_000),
        make_call(finish_reasons=("stop", "ü" * 100), streamed=True, is_byok=False, time_to_first_chunk_us=0),
        make_call(tags=Tags(team="search", agent="ü", session="s", extra={"k" * 200: "v" * 300, "": ""})),
        make_call(attributes={"note": "", "n": "2"}, duration_us=0, fingerprint=FULL),
        make_call(usage=TokenUsage(input_tokens=0, output_tokens=127, total_tokens=128, input_audio_tokens=1 << 49)),
        make_call(usage=TokenUsage(input_tokens=16_383, output_tokens=16_384, reasoning_output_tokens=2_097_151)),
        make_call(listed_cost=Decimal("1E-12"), reported_cost=None, cost_basis=CostBasis.LISTED, price_version="x@1"),
        make_call(fingerprint=FULL, source="otlp:other", key_hash="a" * 64, provider_name="p" * 129),
    ],
)
def test_a_record_is_byte_for_byte_what_the_protobuf_library_writes(call: LLMCall) -> None:
    assert otlp.record(call) == by_the_library(call)
    assert otlp.record(call) == by_the_library(call)


def test_what_calls_share_is_not_taken_from_another_call() -> None:
    calls = [make_call(1), make_call(2, tags=Tags(team="a")), make_call(3, tags=Tags(team="b")), make_call(4)]
    calls += [make_call(n, request_model=f"m{n}", status=CallStatus.ABORTED) for n in range(5, 1_100)]
    calls += [make_call(5, request_model="m5"), make_call(6, is_byok=True), make_call(7, is_byok=False)]
    for call in calls:
        assert otlp.record(call) == by_the_library(call)


def test_a_head_is_what_the_protobuf_library_writes() -> None:
    message = ResourceSpans(resource=Resource())
    for name, value in {**RESOURCE, "long": "x" * 500, "ü": ""}.items():
        message.resource.attributes.add(key=name).value.string_value = value
    assert otlp.head({**RESOURCE, "long": "x" * 500, "ü": ""}) == message.SerializeToString()
    assert otlp.head({}) == ResourceSpans(resource=Resource()).SerializeToString()
