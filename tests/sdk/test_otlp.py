"""Records joined without being parsed are one OTLP request, and the same calls come out at the other end."""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spendwatch import otlp, semconv
from spendwatch.calls import CallStatus, LLMCall, Tags
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
