"""`manage.py import_otel_traces` on the table of the Collector's exporter, filled with real packages' spans."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.datatypes.registry import get_from_name
from django.core.management import CommandError, call_command
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collectors.imports import load, otel_traces
from collectors.otlp import call as call_module
from spendwatch import semconv
from spendwatch.clickhouse.client import Connection
from spendwatch.errors import StoreError
from tests.collectors.otlp import otlp
from tests.collectors.otlp.conftest import partial_success
from tests.collectors.otlp.record.provider import CANARY
from tests.collectors.otlp.test_call import NOW, WHOLE
from tests.collectors.otlp.test_golden import CALLS, body, stored

# opentelemetry-collector-contrib, exporter/clickhouseexporter/internal/sqltemplates/traces_table.sql, without its
# indices and codecs.
SCHEMA = {
    "Timestamp": "DateTime64(9)",
    "TraceId": "String",
    "SpanId": "String",
    "ParentSpanId": "String",
    "TraceState": "String",
    "SpanName": "LowCardinality(String)",
    "SpanKind": "LowCardinality(String)",
    "ServiceName": "LowCardinality(String)",
    "ResourceAttributes": "Map(LowCardinality(String), String)",
    "ScopeName": "String",
    "ScopeVersion": "String",
    "SpanAttributes": "Map(LowCardinality(String), String)",
    "Duration": "UInt64",
    "StatusCode": "LowCardinality(String)",
    "StatusMessage": "String",
}
MORE = """
    Events Nested
        (Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(LowCardinality(String), String)),
    Links Nested (TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String))
"""


@pytest.fixture
def table(project: str, clickhouse: Connection) -> Iterator[Connection]:
    """An empty otel_traces in the same database."""
    columns = ", ".join(f"{name} {kind}" for name, kind in SCHEMA.items())
    clickhouse.command(
        "make",
        f"CREATE TABLE otel_traces ({columns}, {MORE}) ENGINE = MergeTree PARTITION BY toDate(Timestamp) "
        "ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))",
    )
    try:
        yield clickhouse
    finally:
        clickhouse.command("drop", "DROP TABLE otel_traces")


def as_text(value: AnyValue) -> str:
    """As the Collector writes a value into a Map of texts."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "array_value":
        return json.dumps([getattr(item, str(item.WhichOneof("value"))) for item in value.array_value.values])
    return "" if kind is None else str(getattr(value, kind))


def fill(clickhouse: Connection, message: ExportTraceServiceRequest) -> None:
    rows = []
    for group in message.resource_spans:
        resource = {item.key: as_text(item.value) for item in group.resource.attributes}
        for inner in group.scope_spans:
            for span in inner.spans:
                rows.append(
                    (
                        datetime.fromtimestamp(span.start_time_unix_nano / 1e9, UTC),
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        "",
                        span.name,
                        "Client",
                        resource.get("service.name", ""),
                        resource,
                        inner.scope.name,
                        inner.scope.version,
                        {item.key: as_text(item.value) for item in span.attributes},
                        span.end_time_unix_nano - span.start_time_unix_nano,
                        {0: "Unset", 1: "Ok", 2: "Error"}[span.status.code],
                        span.status.message,
                    )
                )
    types = [get_from_name(kind) for kind in SCHEMA.values()]
    clickhouse.insert("fill", "otel_traces", list(SCHEMA), types, list(zip(*rows, strict=True)))


def recorded(name: str) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(body(name)[1])


def run(tmp_path: Path, **options: Any) -> str:
    out = io.StringIO()
    how = {"project": "history", "rejects": tmp_path / "rejects.csv", **options}
    call_command("import_otel_traces", **how, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("name", [name for name in CALLS if name != "vercel_6_json"])
def test_a_collectors_history_gives_the_calls_that_were_sent(name: str, table: Connection, tmp_path: Path) -> None:
    fill(table, recorded(name))
    for _ in range(2):
        assert "calls into project history" in run(tmp_path)
    assert stored(table) == CALLS[name]
    assert "imported" in run(tmp_path, again=True)
    assert stored(table) == CALLS[name]
    assert not (tmp_path / "rejects.csv").exists()


@pytest.mark.parametrize("first", ["sent", "imported"])
def test_a_span_that_was_sent_as_well_counts_once(
    first: str, make_collector: Any, table: Connection, tmp_path: Path
) -> None:
    fill(table, recorded("pydantic_ai"))
    collector = make_collector()
    for step in ("sent", "imported") if first == "sent" else ("imported", "sent"):
        if step == "sent":
            assert partial_success(collector.post(body("pydantic_ai")[1])) == (0, "")
        else:
            run(tmp_path, project="shop")
        assert stored(table) == CALLS["pydantic_ai"]


def test_a_span_of_our_sdk_comes_back_as_the_call_that_it_was(table: Connection) -> None:
    message = otlp.request([otlp.own_span(WHOLE)], scope=semconv.SCOPE_NAME)
    fill(table, message)
    (row,) = otel_traces.Table(ch=table, name="otel_traces").page(0, 2**62, (0, "", ""))
    found = call_module.read(otel_traces.to_span(row), project="shop", now=NOW)
    # The table keeps nanoseconds, this test's way into it microseconds.
    assert found == replace(WHOLE, started_at=found.started_at)  # type: ignore[union-attr]
    assert abs(found.started_at - WHOLE.started_at) < timedelta(microseconds=2)  # type: ignore[union-attr]


def test_the_types_of_our_own_attributes_are_all_known() -> None:
    for name, sent in semconv.to_attributes(WHOLE).items():
        if name in (semconv.COST_AMOUNT, semconv.COST_CURRENCY, semconv.COST_SOURCE):
            continue  # a mirror for others: never read back
        if isinstance(sent, bool | int | float | str):
            text = {True: "true", False: "false"}[sent] if isinstance(sent, bool) else str(sent)
            assert otel_traces._value(name, text) == sent, name
        else:
            assert otel_traces._value(name, json.dumps(list(sent))) == list(sent), name


def test_content_stays_where_it_is(table: Connection, tmp_path: Path) -> None:
    for name in ("pydantic_ai", "openinference", "vercel_6", "openllmetry"):
        fill(table, recorded(name))
    assert (
        table.query("there", "SELECT count() FROM otel_traces WHERE toString(SpanAttributes) LIKE '%canary%'")[0][0] > 9
    )
    rows = otel_traces.Table(ch=table, name="otel_traces").page(0, 2**62, (0, "", ""))
    assert rows
    assert CANARY not in str(rows)
    run(tmp_path)
    for (text,) in table.query("all", "SELECT toString(tuple(*)) FROM llm_calls"):
        assert CANARY not in text


def history(count: int) -> ExportTraceServiceRequest:
    start = datetime.now(UTC).replace(minute=50, second=0, microsecond=0) - timedelta(hours=30)
    usual = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
    }
    spans = [
        otlp.span(
            attributes={**usual, "gen_ai.response.id": f"chatcmpl-{n}"}, at=start + timedelta(seconds=n // 5 * 60)
        )
        for n in range(count)
    ]
    return otlp.request(spans)


def test_an_import_that_was_stopped_goes_on_and_loses_nothing(
    table: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(table, history(103))
    monkeypatch.setattr(otel_traces, "PAGE_SPANS", 7)
    insert = load.rows.insert
    inserts = 0

    def dies(*args: Any, **named: Any) -> None:
        nonlocal inserts
        inserts += 1
        if inserts in (4, 9):
            raise StoreError("ClickHouse is away.", permanent=True)
        insert(*args, **named)

    monkeypatch.setattr(load.rows, "insert", dies)
    for _ in range(2):
        with pytest.raises(CommandError, match=r"ClickHouse is away\. Run the same command again to go on\."):
            run(tmp_path)
    assert "imported 103 calls" in run(tmp_path)
    assert table.query("count", "SELECT count(), countDistinct(response_id) FROM llm_calls FINAL") == [(103, 103)]
    assert inserts <= 103 // 7 + 2 + 2


def test_what_came_since_is_imported_by_the_next_run(table: Connection, tmp_path: Path) -> None:
    fill(table, history(20))
    run(tmp_path)
    late = history(25)
    del late.resource_spans[0].scope_spans[0].spans[:20]
    fill(table, late)
    run(tmp_path)
    assert table.query("count", "SELECT count() FROM llm_calls FINAL") == [(25,)]


def test_some_days_of_it_only(table: Connection, tmp_path: Path) -> None:
    fill(table, history(20))
    day = (datetime.now(UTC) - timedelta(hours=30)).date()
    assert "imported 0 calls" in run(tmp_path, until=datetime.combine(day, datetime.min.time(), UTC))
    assert "imported 20 calls" in run(tmp_path, again=True)
    long_ago, soon = datetime(1990, 1, 1, tzinfo=UTC), datetime(2990, 1, 1, tzinfo=UTC)
    assert "imported 20 calls" in run(tmp_path, again=True, since=long_ago, until=soon)
    assert "imported 0 calls" in run(
        tmp_path, again=True, since=datetime.combine(day, datetime.min.time(), UTC) + timedelta(2)
    )


def test_a_table_that_is_none_is_told(table: Connection, tmp_path: Path) -> None:
    assert "otel_traces is empty" in run(tmp_path)
    for name, reason in (
        ("nothing", r"expected nothing to be a table of the Collector's clickhouse exporter, found it missing"),
        ("llm_calls", r"found it without Timestamp, TraceId"),
        ("otel_traces; DROP TABLE x", r"expected a table's name"),
    ):
        with pytest.raises(CommandError, match=reason):
            run(tmp_path, table=name)
