"""Is it stored already? The rows of given calls, found by the narrow columns that are indexed for it.

Never here: what to do with what is found.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.stored import SELECT, StoredCall, read

MAX_IDS = 5_000
"""Ids in one lookup: as text they must fit into the 128 KiB that a server takes for one parameter."""
_MAX_TRACES = 3_000
HOUR_US = 3_600_000_000
"""Two observers of one generation may place its start this far apart, in microseconds."""


def hours_parameter(hours: Iterable[datetime]) -> list[str]:
    """Hours as an Array(DateTime('UTC')) parameter."""
    return [hour.strftime("%Y-%m-%d %H:%M:%S") for hour in sorted(set(hours))]


def find(ch: Connection, ids: Sequence[int], hours: Iterable[datetime] | None = None) -> list[StoredCall]:
    """The rows of these call ids, among the calls that started in these hours (None: whenever). Raises StoreError.

    First only the narrow id column is read, by its index; whole rows are merged and read only where it has hits.
    """
    return whole(ch, find_ids(ch, ids, hours))


def whole(ch: Connection, hits: Sequence[tuple[int, int]]) -> list[StoredCall]:
    """The rows of these calls, each given by its id and the hour it started in; by their start. Raises StoreError."""
    out: list[StoredCall] = []
    for start in range(0, len(hits), MAX_IDS):
        part = hits[start : start + MAX_IDS]
        rows = ch.query(
            "find_rows",
            # PREWHERE comes before FINAL: right for what is part of the sort key, and no other row is read whole then.
            f"SELECT {SELECT} FROM llm_calls FINAL "
            "PREWHERE toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))} AND call_id IN {ids:Array(UInt64)} "
            "ORDER BY started_at, call_id",
            {
                "ids": sorted({call for call, _ in part}),
                "hours": hours_parameter(datetime.fromtimestamp(hour, UTC) for _, hour in part),
            },
        )
        out += [read(found) for found in rows]
    return out


def find_ids(ch: Connection, ids: Sequence[int], hours: Iterable[datetime] | None) -> list[tuple[int, int]]:
    """(call_id, the hour it started in) of those of these ids that have rows. At most MAX_IDS. Raises StoreError."""
    within = "toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))} AND" if hours is not None else ""
    # As text: clickhouse-connect takes ten times as long over a list.
    parameters: dict[str, Any] = {"ids": f"[{','.join(map(str, ids))}]"}
    if hours is not None:
        parameters["hours"] = hours_parameter(hours)
    found = ch.query(
        "find_ids",
        "SELECT DISTINCT call_id, toUnixTimestamp(toStartOfHour(started_at)) FROM llm_calls "
        f"WHERE {within} call_id IN {{ids:Array(UInt64)}}",
        parameters,
    )
    return [(call, hour) for call, hour in found]


def find_traces(ch: Connection, traces: Iterable[str], hours: Iterable[datetime]) -> list[str]:
    """Those of these trace ids, in hex, under which there are rows. Raises StoreError."""
    wanted, within, out = sorted(set(traces)), hours_parameter(hours), []
    for start in range(0, len(wanted), _MAX_TRACES):
        found = ch.query(
            "find_traces",
            "SELECT DISTINCT lower(hex(trace_id)) FROM llm_calls "
            "WHERE toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))} "
            "AND trace_id IN (SELECT toFixedString(unhex(arrayJoin({traces:Array(String)})), 16))",
            {"hours": within, "traces": wanted[start : start + _MAX_TRACES]},
        )
        out += [trace for (trace,) in found]
    return out
