"""The same calls in two other shapes, filled from llm_calls by the engine itself, and the spend questions to them.

`otel` is the table of OpenTelemetry's ClickHouse exporter: every fact of a span is text in a map. `langfuse` is a table
of events like Langfuse's: ids and names are columns, tokens and costs are maps from a kind to a number. Both hold what
the questions here need and the facts that such a span carries; of the fingerprints only one. Questions are asked as
their tools ask them, without a rollup, for neither ships one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spendwatch.clickhouse.client import Connection

_ATTRIBUTES = {
    "gen_ai.operation.name": "operation_name",
    "gen_ai.provider.name": "provider_name",
    "gen_ai.request.model": "request_model",
    "gen_ai.response.model": "response_model",
    "gen_ai.response.id": "response_id",
    "gen_ai.response.finish_reasons": "finish_reason",
    "gen_ai.usage.input_tokens": "toString(input_tokens)",
    "gen_ai.usage.output_tokens": "toString(output_tokens)",
    "gen_ai.usage.cache_read.input_tokens": "toString(cache_read_input_tokens)",
    "gen_ai.usage.cost": "toString(effective_cost)",
    "spendwatch.cost.listed": "toString(list_cost)",
    "spendwatch.serving_provider": "serving_provider",
    "spendwatch.key_hash": "key_hash",
    "spendwatch.tags.team": "team",
    "spendwatch.tags.agent": "agent",
    "spendwatch.tags.feature": "feature",
    "user.id": "user_id",
    "session.id": "session_id",
    "server.address": "server_address",
    "http.response.status_code": "toString(http_status)",
    "spendwatch.fingerprint.last": "lower(hex(fingerprint_last))",
}
_PAIRS = ", ".join(f"('{name}', ifNull({sql}, ''))" for name, sql in _ATTRIBUTES.items())

_OTEL_TABLE = """CREATE TABLE otel_traces (
    Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)), TraceId String CODEC(ZSTD(1)), SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)), TraceState String CODEC(ZSTD(1)),
    SpanName LowCardinality(String) CODEC(ZSTD(1)), SpanKind LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)), ScopeVersion String CODEC(ZSTD(1)),
    SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration UInt64 CODEC(T64, ZSTD(1)), StatusCode LowCardinality(String) CODEC(ZSTD(1)),
    StatusMessage String CODEC(ZSTD(1)),
    INDEX trace TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX resource_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX resource_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX span_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX span_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX duration Duration TYPE minmax GRANULARITY 1
) ENGINE = MergeTree PARTITION BY toDate(Timestamp)
PRIMARY KEY (ServiceName, SpanName, toDateTime(Timestamp))
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp), Timestamp)
SETTINGS ttl_only_drop_parts = 1"""

_OTEL_FILL = f"""INSERT INTO otel_traces
SELECT started_at, lower(hex(trace_id)), lower(hex(span_id)),
    if(parent_span_id = toFixedString('', 8), '', lower(hex(parent_span_id))), '',
    concat('chat ', request_model), 'Client', service_name,
    map('service.name', service_name, 'deployment.environment.name', environment), 'spendwatch', '1',
    mapFromArrays(arrayMap(p -> p.1, set_), arrayMap(p -> p.2, set_)), duration_us * 1000,
    if(status = 'error', 'Error', 'Unset'), ''
FROM (SELECT *, arrayFilter(p -> p.2 != '', [{_PAIRS}]) AS set_ FROM llm_calls WHERE {{part}})"""

_LANGFUSE_TABLE = """CREATE TABLE events (
    project_id String, trace_id String, span_id String, parent_span_id String, start_time DateTime64(6),
    end_time Nullable(DateTime64(6)), completion_start_time Nullable(DateTime64(6)), name String,
    type LowCardinality(String), environment LowCardinality(String), trace_name String, user_id String,
    session_id String, tags Array(String), release String, version String, level LowCardinality(String),
    status_message String, provided_model_name String, model_id String, model_parameters String,
    usage_details Map(LowCardinality(String), UInt64), cost_details Map(LowCardinality(String), Decimal(18, 12)),
    input String CODEC(ZSTD(3)), output String CODEC(ZSTD(3)), metadata Map(LowCardinality(String), String),
    service_name String, created_at DateTime64(6), updated_at DateTime64(6), event_ts DateTime64(6), is_deleted UInt8,
    INDEX span span_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX user user_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX session session_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree(event_ts, is_deleted) PARTITION BY toYYYYMM(start_time)
PRIMARY KEY (project_id, toStartOfMinute(start_time), xxHash32(trace_id))
ORDER BY (project_id, toStartOfMinute(start_time), xxHash32(trace_id), span_id, start_time)"""

_LANGFUSE_FILL = """INSERT INTO events
SELECT project, lower(hex(trace_id)), lower(hex(span_id)), lower(hex(parent_span_id)), started_at,
    addMicroseconds(started_at, duration_us),
    if(isNull(time_to_first_chunk_us), NULL, addMicroseconds(started_at, assumeNotNull(time_to_first_chunk_us))),
    'chat', 'GENERATION', environment, agent, user_id, session_id, [team, feature], '', '',
    if(status = 'error', 'ERROR', 'DEFAULT'), error_type, request_model, '', '',
    if(isNull(input_tokens), map(), map(
        'input', toUInt64(input_tokens - cache_read_input_tokens),
        'input_cached_tokens', toUInt64(cache_read_input_tokens),
        'output', toUInt64(output_tokens), 'total', toUInt64(input_tokens + output_tokens))),
    if(isNull(effective_cost), map(), map('total', assumeNotNull(effective_cost))),
    '', '', map('response_id', response_id, 'key_hash', key_hash, 'provider', provider_name,
        'serving', serving_provider, 'team', team, 'fingerprint', lower(hex(fingerprint_last))),
    service_name, received_at, received_at, received_at, 0
FROM llm_calls WHERE {part}"""


@dataclass(frozen=True, slots=True)
class Rival:
    """A shape: how its table is made and filled, and each question (name -> SQL) with the parameters it takes."""

    table: str
    create: str
    fill: str
    questions: Mapping[str, str]

    def make(self, ch: Connection) -> None:
        """Its empty table."""
        ch.command("rival", self.create)

    def copy(self, ch: Connection, start: int, end: int) -> None:
        """The calls that started in [start, end), seconds since 1970."""
        part = f"started_at >= toDateTime({start}) AND started_at < toDateTime({end})"
        ch.command("rival", self.fill.replace("{part}", part))

    def size(self, ch: Connection) -> tuple[int, int]:
        """Rows and bytes on disk."""
        return size(ch, self.table)


def size(ch: Connection, table: str) -> tuple[int, int]:
    """Rows and bytes on disk of a table's live parts."""
    rows = ch.query(
        "size",
        "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND table = {table:String}",
        {"table": table},
    )
    return int(rows[0][0]), int(rows[0][1])


_AT = "fromUnixTimestamp({{{0}:Int64}})"


def _within(column: str) -> str:
    return f"{column} >= {_AT.format('start')} AND {column} < {_AT.format('end')}"


_OTEL_COST = "sum(toFloat64OrZero(SpanAttributes['gen_ai.usage.cost']))"
_OTEL_IN = "sum(toUInt64OrZero(SpanAttributes['gen_ai.usage.input_tokens']))"
_OTEL_OUT = "sum(toUInt64OrZero(SpanAttributes['gen_ai.usage.output_tokens']))"
_OTEL_SUMS = f"{_OTEL_COST} AS cost, count() AS calls, {_OTEL_IN} AS read, {_OTEL_OUT} AS written"
_OTEL = f"FROM otel_traces WHERE {_within('Timestamp')}"

_LANGFUSE_SUMS = (
    "sum(cost_details['total']) AS cost, count() AS calls, sum(usage_details['input']) AS read, "
    "sum(usage_details['output']) AS written"
)
_LANGFUSE = f"FROM events FINAL WHERE {_within('start_time')}"


def _attribute(name: str) -> str:
    return f"SpanAttributes['{name}']"


OTEL = Rival(
    table="otel_traces",
    create=_OTEL_TABLE,
    fill=_OTEL_FILL,
    questions={
        "month_by_model_and_team": f"SELECT {_attribute('gen_ai.request.model')} AS model, "
        f"{_attribute('spendwatch.tags.team')} AS team, {_OTEL_SUMS} {_OTEL} GROUP BY model, team ORDER BY cost DESC",
        "month_total": f"SELECT {_OTEL_SUMS} {_OTEL}",
        "today_total": f"SELECT {_OTEL_SUMS} {_OTEL}",
        "budget_of_a_team": f"SELECT {_OTEL_SUMS} {_OTEL} AND {_attribute('spendwatch.tags.team')} = {{team:String}}",
        "month_by_day": f"SELECT toDate(Timestamp) AS day, {_attribute('gen_ai.request.model')} AS model, {_OTEL_SUMS} "
        f"{_OTEL} GROUP BY day, model ORDER BY day",
        "last_hour_by_agent": f"SELECT {_attribute('spendwatch.tags.agent')} AS agent, {_OTEL_SUMS} {_OTEL} "
        "GROUP BY agent ORDER BY cost DESC LIMIT 20",
        "reconcile_a_day": f"SELECT toDate(Timestamp) AS day, {_attribute('gen_ai.response.model')} AS model, "
        f"{_attribute('spendwatch.serving_provider')} AS served, {_attribute('spendwatch.key_hash')} AS key, "
        f"{_OTEL_SUMS} {_OTEL} AND {_attribute('gen_ai.provider.name')} = 'openrouter' "
        "GROUP BY day, model, served, key",
        "session": f"SELECT {_OTEL_SUMS} {_OTEL} AND {_attribute('session.id')} = {{session:String}}",
        "loop_scan": f"SELECT {_attribute('session.id')} AS session, "
        f"{_attribute('spendwatch.fingerprint.last')} AS print, count() AS calls {_OTEL} "
        "GROUP BY session, print HAVING calls > 2",
    },
)

LANGFUSE = Rival(
    table="events",
    create=_LANGFUSE_TABLE,
    fill=_LANGFUSE_FILL,
    questions={
        "month_by_model_and_team": f"SELECT provided_model_name AS model, metadata['team'] AS team, {_LANGFUSE_SUMS} "
        f"{_LANGFUSE} GROUP BY model, team ORDER BY cost DESC",
        "month_total": f"SELECT {_LANGFUSE_SUMS} {_LANGFUSE}",
        "today_total": f"SELECT {_LANGFUSE_SUMS} {_LANGFUSE}",
        "budget_of_a_team": f"SELECT {_LANGFUSE_SUMS} {_LANGFUSE} AND has(tags, {{team:String}})",
        "month_by_day": f"SELECT toDate(start_time) AS day, provided_model_name AS model, {_LANGFUSE_SUMS} {_LANGFUSE} "
        "GROUP BY day, model ORDER BY day",
        "last_hour_by_agent": f"SELECT trace_name AS agent, {_LANGFUSE_SUMS} {_LANGFUSE} GROUP BY agent "
        "ORDER BY cost DESC LIMIT 20",
        "reconcile_a_day": "SELECT toDate(start_time) AS day, provided_model_name AS model, "
        f"metadata['serving'] AS served, metadata['key_hash'] AS key, {_LANGFUSE_SUMS} {_LANGFUSE} "
        "AND metadata['provider'] = 'openrouter' "
        "GROUP BY day, model, served, key",
        "session": f"SELECT {_LANGFUSE_SUMS} {_LANGFUSE} AND session_id = {{session:String}}",
        "loop_scan": f"SELECT session_id, metadata['fingerprint'] AS print, count() AS calls {_LANGFUSE} "
        "GROUP BY session_id, print HAVING calls > 2",
    },
)

RIVALS: Mapping[str, Rival] = {"otel": OTEL, "langfuse": LANGFUSE}


def ask(ch: Connection, rival: Rival, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The answer of one question. parameters: start and end in seconds since 1970, team, session."""
    return ch.query(name, rival.questions[name], parameters)
