"""The table that an OpenTelemetry Collector's clickhouse exporter writes (`otel_traces`) -> batches of calls.

Its rows are spans, every attribute's value a text. They are read by the same dialects and have the same identity as
spans that are sent here, so it does not matter how often or by which way a span comes. ClickHouse hands over only the
attributes that are read: content stays where it is. Read in the order of time, an hour at a time, page by page.
Schema: opentelemetry-collector-contrib, exporter/clickhouseexporter (not its JSON variant).
"""

# ruff: noqa: S608  # the table's name is checked, values are parameters

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from collectors.imports.load import Batch, Reject
from collectors.otlp import call, dialects
from collectors.otlp.spans import MAX_TEXT, Rejected, Span, text
from spendwatch import semconv
from spendwatch.clickhouse.client import Connection
from spendwatch.errors import ConfigError
from spendwatch.prices import PriceBook, value

PAGE_SPANS = 10_000
OVERLAP = timedelta(days=1)
"""A finished import goes on this much before its end: spans come late."""

COLUMNS = (
    "Timestamp", "TraceId", "SpanId", "ParentSpanId", "SpanName", "ServiceName", "ResourceAttributes", "ScopeName",
    "SpanAttributes", "Duration", "StatusCode", "StatusMessage",
)  # fmt: skip
_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)?[A-Za-z_]\w*", re.ASCII)

_SPEAKS_OF_A_MODEL = (
    *dialects.MARKS, "gen_ai.provider.name", "gen_ai.system", "gen_ai.request.model", "gen_ai.is_streaming",
    "ai.model.id", semconv.COST_BASIS,
)  # fmt: skip
"""A span with none of these is no call in any dialect, and none of our own."""

_INTS = ("server.port", "http.response.status_code", "spendwatch.fingerprint.last_length",
         "spendwatch.fingerprint.messages", "spendwatch.fingerprint.response_length")  # fmt: skip
_INT_BEGINNINGS = ("gen_ai.usage.", "spendwatch.usage.")
_BOOLS = (semconv.IS_BYOK, semconv.STREAM, "spendwatch.fingerprint.last_is_error")
_DOUBLES = (semconv.TIME_TO_FIRST_CHUNK,)
_LISTS = (semconv.FINISH_REASONS, semconv.FINGERPRINT_TOOLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Where the spans are. name: table or database.table."""

    ch: Connection
    name: str

    def check(self) -> None:
        """Raise ConfigError when it is not such a table. Raises StoreError."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"expected a table's name (otel_traces, database.otel_traces), found {self.name!r}.")
        database, _, table = self.name.rpartition(".")
        found = self.ch.query(
            "otel_columns",
            "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}",
            {"database": database or self.ch.database, "table": table},
        )
        types = dict(found)
        missing = [name for name in COLUMNS if name not in types]
        if missing:
            raise ConfigError(
                f"expected {self.name} to be a table of the Collector's clickhouse exporter, found it "
                f"{'missing' if not types else 'without ' + ', '.join(missing)}. Name another with --table."
            )
        if not types["SpanAttributes"].startswith("Map("):
            raise ConfigError(
                f"expected {self.name}.SpanAttributes to be a Map, found {types['SpanAttributes']}. "
                "The exporter's JSON columns are not read."
            )

    def span_of_time(self) -> tuple[datetime, datetime] | None:
        """The hours of its first and last span; None when it is empty. Raises StoreError."""
        ((rows, first, last),) = self.ch.query(
            "otel_range",
            "SELECT count(), toUnixTimestamp(toStartOfHour(min(Timestamp))), "
            f"toUnixTimestamp(toStartOfHour(max(Timestamp))) FROM {self.name}",
        )
        return (datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC)) if rows else None

    def page(self, start_ns: int, end_ns: int, after: tuple[int, str, str]) -> list[tuple[Any, ...]]:
        """The next spans of models in [start, end), behind `after` (time, trace, span). Raises StoreError."""
        wanted = "k IN {names:Array(String)} OR startsWith(k, 'spendwatch.')"
        resource = "k IN {resource:Array(String)} OR startsWith(k, 'spendwatch.tags.')"
        return self.ch.query(
            "otel_page",
            f"SELECT toUnixTimestamp64Nano(Timestamp), TraceId, SpanId, ParentSpanId, SpanName, ServiceName, "
            f"mapFilter((k, v) -> {resource}, ResourceAttributes), ScopeName, "
            f"mapApply((k, v) -> (k, substringUTF8(v, 1, {MAX_TEXT})), mapFilter((k, v) -> {wanted}, SpanAttributes)), "
            f"toInt64(Duration), StatusCode, if(ScopeName = 'openrouter', StatusMessage, '') FROM {self.name} "
            "WHERE Timestamp >= fromUnixTimestamp64Nano({start:Int64}) "
            "AND Timestamp < fromUnixTimestamp64Nano({end:Int64}) "
            "AND (toUnixTimestamp64Nano(Timestamp), TraceId, SpanId) > ({ns:Int64}, {trace:String}, {span:String}) "
            "AND hasAny(mapKeys(SpanAttributes), {marks:Array(String)}) "
            "ORDER BY Timestamp, TraceId, SpanId LIMIT {limit:UInt32}",
            {
                "start": start_ns,
                "end": end_ns,
                "ns": after[0],
                "trace": after[1],
                "span": after[2],
                "names": sorted(dialects.NAMES),
                "resource": sorted(dialects.RESOURCE_NAMES),
                "marks": list(_SPEAKS_OF_A_MODEL),
                "limit": PAGE_SPANS,
            },
        )


def batches(
    table: Table, *, since: datetime, until: datetime, after: Any, project: str, book: PriceBook, now: datetime
) -> Iterator[Batch]:
    """The calls among the spans that started in [since, until). A batch's position is (time in ns, trace, span)."""
    last = (int(after[0]), str(after[1]), str(after[2])) if after else (0, "", "")
    hour = max(since, _hour(last[0])) if after else since
    reader = call.Reader(project=project, now=now)
    while hour < until:
        end = min(until, (hour + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0))
        while True:
            rows = table.page(_ns(hour), _ns(end), last)
            if not rows:
                break
            last = (rows[-1][0], rows[-1][1], rows[-1][2])
            yield _batch(rows, last, reader, book)
            if len(rows) < PAGE_SPANS:
                break
        hour = end
        if last[0] < _ns(end):
            last = (_ns(end), "", "")
            yield Batch(position=list(last))


def _batch(rows: list[tuple[Any, ...]], last: tuple[int, str, str], reader: call.Reader, book: PriceBook) -> Batch:
    batch = Batch(position=list(last))
    for row in rows:
        span = to_span(row)
        found = reader.read(span)
        place = f"trace {span.trace_id}, span {span.span_id}"
        if isinstance(found, Rejected):
            batch.rejects.append(Reject(place, found.reason))
        elif found is not None:
            batch.calls.append(value(found, book))
            batch.places.append(place)
    return batch


def to_span(row: tuple[Any, ...]) -> Span:
    """A row of Table.page() as the span that it was."""
    start_ns, trace_id, span_id, parent, name, service, resource, scope, attributes, duration, code, message = row
    failed = code in ("Error", "STATUS_CODE_ERROR")
    own = scope == semconv.SCOPE_NAME
    return Span(
        trace_id=trace_id.lower(),
        span_id=span_id.lower(),
        parent_span_id=parent.lower() if parent.strip("0") else None,
        name=text(name),
        start_ns=start_ns,
        end_ns=start_ns + max(duration, 0),
        failed=failed,
        status_message=text(message) if failed else "",
        attributes=_typed(attributes) if own else dict(attributes),
        scope=text(scope),
        resource={**({semconv.SERVICE_NAME: service} if service else {}), **resource},
    )


def _typed(attributes: Mapping[str, str]) -> dict[str, object]:
    """Our own span's attributes, each of the type that it was sent with."""
    return {name: _value(name, said) for name, said in attributes.items()}


def _value(name: str, said: str) -> object:
    try:
        if name in _INTS or (name.startswith(_INT_BEGINNINGS) and not name.startswith("gen_ai.usage.cost")):
            return int(said)
        if name in _BOOLS:
            return {"true": True, "false": False}[said]
        if name in _DOUBLES:
            return float(said)
        if name in _LISTS:
            found = json.loads(said)
            return found if isinstance(found, list) else said
    except (ValueError, KeyError, RecursionError):
        pass
    return said


def _ns(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000_000


def _hour(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(minute=0, second=0, microsecond=0)
