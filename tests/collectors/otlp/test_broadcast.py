"""OpenRouter's Broadcast as it is posted: its connection test, its generations, those that were left."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp.conftest import Collector, partial_success

AT = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)


def attribute(key: str, value: object) -> dict[str, Any]:
    # Broadcast writes integers as JSON numbers, also whole doubles.
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}[type(value)]
    return {"key": key, "value": {kind: value}}


def span(name: str, attributes: dict[str, object], *, status: dict[str, Any] | None = None, n: int = 1) -> Any:
    start = int(AT.timestamp()) * 10**9
    return {
        "resource": {
            "attributes": [
                attribute("service.name", "openrouter"),
                attribute("service.version", "1.0.0"),
                attribute("openrouter.trace.id", f"gen-1763769600-{n}"),
            ]
        },
        "scopeSpans": [
            {
                "scope": {"name": "openrouter", "version": "1.0.0"},
                "spans": [
                    {
                        "traceId": f"{n:032x}",
                        "spanId": f"{n:016x}",
                        "name": name,
                        "kind": 3,
                        "startTimeUnixNano": str(start),
                        "endTimeUnixNano": str(start + 2_460_000_000),
                        "status": status or {"code": 1},
                        "attributes": [attribute(key, value) for key, value in attributes.items()],
                    }
                ],
            }
        ],
    }


GENERATION: dict[str, object] = {
    "trace.name": "LLM Generation",
    "span.type": "generation",
    "session.id": "s-1",
    "user.id": "u-1",
    "gen_ai.operation.name": "chat",
    "gen_ai.system": "openai",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "openai/gpt-4.1-mini",
    "gen_ai.response.model": "openai/gpt-4.1-mini",
    "gen_ai.response.id": "gen-1763769600-1",
    "gen_ai.usage.input_tokens": 10240,
    "gen_ai.usage.output_tokens": 310,
    "gen_ai.usage.total_tokens": 10550,
    "gen_ai.usage.input_tokens.cached": 8192,
    "gen_ai.usage.total_cost": 0.0021344,
    "gen_ai.response.finish_reasons": '["stop"]',
    "gen_ai.prompt": "secret",
    "trace.input": "secret",
    "trace.metadata.openrouter.provider_name": "Azure",
    "trace.metadata.openrouter.api_key_name": "prod-chat",
    "trace.metadata.openrouter.first_token_ms": 250,
    "trace.metadata.openrouter_generation.usage": 0.0021344,
    "trace.metadata.openrouter_generation.is_byok": False,
    "trace.metadata.openrouter_generation.byok_usage_inference": 0,
    "trace.metadata.openrouter_generation.streamed": True,
}


def post(collector: Collector, *groups: Any, **headers: str) -> Any:
    body = json.dumps({"resourceSpans": list(groups)}).encode()
    return collector.post(body, content_type="application/json", headers=headers)


def test_the_connection_test_is_answered_and_nothing_is_stored(collector: Collector, clickhouse: Connection) -> None:
    for groups in ([span("openrouter-connection-test", {})], []):
        assert partial_success(post(collector, *groups, **{"x-test-connection": "true"})) == (0, "")
    assert clickhouse.query("count", "SELECT count() FROM llm_calls") == [(0,)]
    wrong = collector.post(b"{}", content_type="application/json", token="swt_wrong")
    assert wrong.status_code == 401  # a wrong token is found out by the test, not by missing calls


def test_a_generation_is_one_row_with_what_was_charged(collector: Collector, clickhouse: Connection) -> None:
    attempt = {**GENERATION, "gen_ai.response.id": "gen-1763769600-1:attempt-0"}
    inner = {**GENERATION, "gen_ai.response.id": "gen-1763769600-1:generation"}
    groups = (
        span("LLM Generation", GENERATION),
        span("provider attempt 1: Azure", attempt, n=2),
        span("generation", inner, n=3),
    )
    for _ in range(2):
        assert partial_success(post(collector, *groups)) == (0, "")
    assert clickhouse.query(
        "row",
        "SELECT source, provider_name, serving_provider, response_id, input_tokens, cache_read_input_tokens, "
        "output_tokens, effective_cost, cost_basis, is_byok, streamed, time_to_first_chunk_us, duration_us, "
        "finish_reason, session_id, user_id, status, attributes['key_name'] FROM llm_calls FINAL",
    ) == [
        ("broadcast", "openrouter", "Azure", "gen-1763769600-1", 10240, 8192, 310, Decimal("0.0021344"), "reported",
         False, True, 250_000, 2_460_000, "stop", "s-1", "u-1", "ok", "prod-chat")
    ]  # fmt: skip
    assert "secret" not in str(clickhouse.query("all", "SELECT toString(tuple(*)) FROM llm_calls"))


CANCELLED = {
    "span.type": "generation",
    "gen_ai.response.id": "gen-1763769600-1",
    "gen_ai.usage.input_tokens": 900,
    "trace.metadata.openrouter.provider_name": "Groq",
}
GONE = {"code": 2, "message": "The client has disconnected"}


@pytest.mark.parametrize(
    ("attributes", "status", "expected"),
    [
        (CANCELLED, GONE, ("aborted", 900, None, None, "unpriced")),
        ({**CANCELLED, "gen_ai.operation.name": "chat"}, GONE, ("aborted", 900, None, None, "unpriced")),
        (
            {**CANCELLED, "span.status_message": "The client has disconnected"},
            {"code": 2},
            ("aborted", 900, None, None, "unpriced"),
        ),
        (CANCELLED, {"code": 2, "message": "Provider returned error"}, ("error", 900, None, None, "unpriced")),
        (CANCELLED, {"code": 2}, ("error", 900, None, None, "unpriced")),
        # What was charged for the part that came is what it cost.
        (
            {**CANCELLED, "trace.metadata.openrouter_generation.usage": 0.001},
            GONE,
            ("aborted", 900, None, Decimal("0.001"), "reported"),
        ),
    ],
)
def test_a_generation_that_was_left_is_aborted_and_what_is_unknown_of_it_stays_so(
    attributes: dict[str, object],
    status: dict[str, Any],
    expected: tuple[Any, ...],
    collector: Collector,
    clickhouse: Any,
) -> None:
    assert partial_success(post(collector, span("LLM Generation", attributes, status=status))) == (0, "")
    columns = "status, input_tokens, output_tokens, effective_cost, cost_basis"
    assert clickhouse.query("row", f"SELECT {columns} FROM llm_calls FINAL") == [expected]


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/logs"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-protobuf"])
def test_metrics_and_logs_are_taken_and_nothing_is_stored(
    path: str, content_type: str, collector: Collector, clickhouse: Connection
) -> None:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
    )
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
    )

    if path == "/v1/metrics":
        request: Any = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
        metric.name = "gen_ai.client.token.usage"
        point = metric.histogram.data_points.add()
        point.count, point.sum = 1, 1200
    else:
        request = ExportLogsServiceRequest()
        record = request.resource_logs.add().scope_logs.add().log_records.add()
        record.body.string_value = "secret"
    body = b"{}" if content_type == "application/json" else request.SerializeToString()
    response = collector.post(body, path=path, content_type=content_type)
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)
    if content_type == "application/json":
        assert response.json() == {}
    else:
        answer = ExportMetricsServiceResponse if path == "/v1/metrics" else ExportLogsServiceResponse
        assert not answer.FromString(response.content).HasField("partial_success")
    assert clickhouse.query("count", "SELECT count() FROM llm_calls") == [(0,)]
    assert collector.post(body, path=path, content_type=content_type, token="swt_wrong").status_code == 401
