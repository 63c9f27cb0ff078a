"""The roller: rebuilds the hourly sums of the hours whose calls changed, from the calls, whole hours at a time.

A rebuild is a new generation of the hour. Its rows are written first and count only once one block in
llm_calls_generations names them, so dying anywhere leaves the old sums in force; running twice, or two at once, changes
nothing. Calls that two observers sent at the same moment, and that insert could not see together, are made one here.
Never here: adding to sums (a resend would count twice).
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

from clickhouse_connect.datatypes.registry import get_from_name

from spendwatch.clickhouse import daily, hourly, retention, same, twins
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.merge import merge
from spendwatch.clickhouse.rows import Identity, find, hours_parameter, identity, removal, replacement, write
from spendwatch.clickhouse.stored import StoredCall

_MAX_HOURS = 200
_MAX_CALLS = 4_000_000
"""Hours and calls in one INSERT: bounds its time and memory when a whole history is rebuilt."""
_MAX_TWINS = 5_000
_MAX_TRACES = 1_000
_TWINS_WITHIN = timedelta(days=1)
"""How far back a first pass searches for calls that were stored twice."""
_AFRESH = timedelta(seconds=10)
"""While an hour settles, it is rebuilt when a call came later than this before the last look, not at every pass."""

_GENERATION_COLUMNS = {
    "hour": get_from_name("DateTime('UTC')"),
    "generation": get_from_name("UInt64"),
    "rolled_through": get_from_name("DateTime64(3, 'UTC')"),
    "provisional": get_from_name("UInt8"),
}


@dataclass(frozen=True, slots=True)
class RollResult:
    """What one pass did: the hours and days it rebuilt, the calls that it made one of, and how long it took."""

    hours: int
    days: int
    joined: int
    duration_s: float


def roll(ch: Connection) -> RollResult:
    """Bring the hourly and daily sums up to date. Run it every few seconds. Raises StoreError; then run it again."""
    began = time.monotonic()
    mark = hourly.watermark(ch)
    joined = _join_twins(ch, mark) + _join_repeats(ch, mark)
    # The engine's clock, as for stored_at. What is visible from here on, this pass reads.
    ((now_us,),) = ch.query("now", "SELECT toUnixTimestamp64Micro(now64(6))")
    now = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    # Larger for a later look; two passes that look in the same microsecond are told apart by chance.
    generation = now_us * 4096 + secrets.randbelow(4096)
    due = _due(ch, mark, now)
    if due:
        for provisional in (False, True):
            hours = sorted(hour for hour, flag in due.items() if flag is provisional)
            for some in _portions(ch, hours):
                _rebuild(ch, some, generation, provisional)
        _commit(ch, due, generation, now_us // 1000)
    days = daily.roll(ch, now, generation)
    return RollResult(hours=len(due), days=days, joined=joined, duration_s=time.monotonic() - began)


def mend(ch: Connection) -> int:
    """Make the sums again of all hours whose sums are not those of their calls; returns how many.

    For when calls were taken away rather than replaced, which leaves no trace of the hour. Raises StoreError.
    """
    ((now_us,),) = ch.query("now", "SELECT toUnixTimestamp64Micro(now64(6))")
    wrong = _wrong_hours(ch)
    if wrong:
        generation = now_us * 4096 + secrets.randbelow(4096)
        for some in _portions(ch, wrong):
            _rebuild(ch, some, generation, provisional=False)
        # It says nothing of other hours, so the line of hour 0 stays as it is.
        _commit(ch, dict.fromkeys(wrong, False), generation, now_us // 1000, of_all=False)
    now = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    daily.roll(ch, now, now_us * 4096 + 4095)
    return len(wrong)


def _wrong_hours(ch: Connection) -> list[datetime]:
    """The hours whose calls and sums differ in count, cost or tokens. Not those that keep their sums."""
    months = ch.query(
        "months",
        "SELECT DISTINCT toUnixTimestamp(toStartOfMonth(hour, 'UTC')) AS month, "
        "toUnixTimestamp(toStartOfMonth(addMonths(hour, 1), 'UTC')) FROM llm_calls_hourly ORDER BY month",
    )
    out: list[datetime] = []
    for start, end in months:
        within = "hour >= toDateTime({start:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')"
        started_within = within.replace("hour", "toStartOfHour(started_at)")
        rows = ch.query(
            "wrong_hours",
            "SELECT toUnixTimestamp(hour) FROM (SELECT toStartOfHour(started_at) AS hour, count() AS calls, "
            f"{hourly.MEASURES['effective_cost']} AS cost, {hourly.MEASURES['input_tokens']} AS tokens "
            f"FROM llm_calls FINAL WHERE {started_within} GROUP BY hour) AS standing FULL OUTER JOIN "
            "(SELECT hour, sum(calls) AS calls, sum(effective_cost) AS cost, sum(input_tokens) AS tokens "
            f"FROM llm_calls_hourly WHERE {within} AND {hourly.NEWEST.format(where=f'WHERE {within}')} GROUP BY hour) "
            "AS summed USING (hour) WHERE (standing.calls, standing.cost, standing.tokens) "
            "!= (summed.calls, summed.cost, summed.tokens) ORDER BY 1",
            {"start": start, "end": end},
        )
        hours = [datetime.fromtimestamp(hour, UTC) for (hour,) in rows]
        frozen = retention.frozen(ch, hours)
        out += [hour for hour in hours if hour not in frozen]
    return out


def _due(ch: Connection, mark: hourly.Watermark, now: datetime) -> dict[datetime, bool]:
    """The hours to rebuild now, and whether each is still settling, so that it is sure to be rebuilt once more."""
    stored = ch.query(
        "changed_hours",
        "SELECT toUnixTimestamp(toStartOfHour(started_at)) AS hour, toUnixTimestamp64Milli(max(stored_at)) "
        "FROM llm_calls WHERE stored_at >= fromUnixTimestamp64Milli({safe:Int64}, 'UTC') GROUP BY hour",
        {"safe": mark.safe_ms},
    )
    if not stored:
        return {}
    looks = ch.query(
        "last_looks",
        "SELECT toUnixTimestamp(hour), toUnixTimestamp64Milli(argMax(rolled_through, generation)) "
        "FROM llm_calls_generations WHERE hour IN {hours:Array(DateTime('UTC'))} GROUP BY hour",
        {"hours": hours_parameter(datetime.fromtimestamp(hour, UTC) for hour, _ in stored)},
    )
    last_look = {hour: datetime.fromtimestamp(ms / 1000, UTC) for hour, ms in looks}
    due = {}
    frozen = retention.frozen(ch, [datetime.fromtimestamp(hour, UTC) for hour, _ in stored])
    for hour, newest_ms in stored:
        if datetime.fromtimestamp(hour, UTC) in frozen:
            continue  # Some of its calls may be gone: it keeps the sums it has.
        newest = datetime.fromtimestamp(newest_ms / 1000, UTC)
        settling = newest >= now - timedelta(seconds=hourly.SETTLING_S)
        if settling and hour in last_look and newest < last_look[hour] - _AFRESH:
            continue  # Nothing new since; its readers still go to the calls, and its last rebuild is to come.
        due[datetime.fromtimestamp(hour, UTC)] = settling
    return due


def _portions(ch: Connection, hours: Sequence[datetime]) -> Iterator[list[datetime]]:
    """The hours, so many at a time as one INSERT may sum."""
    calls: dict[int, int] = {}
    if len(hours) > 1:
        calls |= ch.query(
            "calls_of_hours",
            "SELECT toUnixTimestamp(toStartOfHour(started_at)) AS hour, count() FROM llm_calls "
            "WHERE toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))} GROUP BY hour",
            {"hours": hours_parameter(hours)},
        )
    some: list[datetime] = []
    held = 0
    for hour in hours:
        these = calls.get(int(hour.timestamp()), 0)
        if some and (held + these > _MAX_CALLS or len(some) == _MAX_HOURS):
            yield some
            some, held = [], 0
        some.append(hour)
        held += these
    if some:
        yield some


def _rebuild(ch: Connection, hours: Sequence[datetime], generation: int, provisional: bool) -> None:
    """Write the sums of these hours under a generation that nobody reads yet."""
    dimensions = ", ".join(hourly.DIMENSIONS)
    measures = ", ".join(hourly.MEASURES)
    sums = ", ".join(f"{sql} AS sum_{name}" for name, sql in hourly.MEASURES.items())
    ch.command(
        "rebuild_hours",
        f"INSERT INTO llm_calls_hourly (hour, generation, rolled_at, provisional, {dimensions}, {measures}) "
        "SELECT toStartOfHour(started_at) AS started_hour, {generation:UInt64}, now(), {provisional:UInt8}, "
        f"{dimensions}, {sums} FROM llm_calls FINAL "
        f"WHERE toStartOfHour(started_at) IN {{hours:Array(DateTime('UTC'))}} GROUP BY started_hour, {dimensions}",
        {"generation": generation, "provisional": int(provisional), "hours": hours_parameter(hours)},
    )


def _commit(
    ch: Connection, due: Mapping[datetime, bool], generation: int, looked_ms: int, *, of_all: bool = True
) -> None:
    """Put the rebuilt hours in force, all at once. The line of hour 0 says up to where all calls were looked at."""
    lines = [(int(hour.timestamp()), generation, looked_ms, int(settling)) for hour, settling in sorted(due.items())]
    if of_all:
        lines.append((0, generation, looked_ms, 0))
    columns = list(_GENERATION_COLUMNS)
    data = list(zip(*lines, strict=True))
    ch.insert("commit_hours", "llm_calls_generations", columns, list(_GENERATION_COLUMNS.values()), data)


def _join_twins(ch: Connection, mark: hourly.Watermark) -> int:
    """Make one row of the rows that stand for one call under several sort keys; returns how many calls had them.

    Two processes that store two observations of a call in the same moment can't see each other's. The earliest key
    stays; it is written before the others are taken away, so a crash between leaves a call too many, never too few.
    """
    now = datetime.now(UTC)
    since_ms = max(mark.safe_ms, int((now - _TWINS_WITHIN).timestamp() * 1000))
    recent = "stored_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') AND response_id != ''"
    rows = ch.query(
        "twins",
        "SELECT call_id FROM llm_calls FINAL "
        f"WHERE toStartOfHour(started_at) GLOBAL IN (SELECT toStartOfHour(started_at) FROM llm_calls WHERE {recent}) "
        f"AND call_id GLOBAL IN (SELECT call_id FROM llm_calls WHERE {recent}) "
        "GROUP BY call_id HAVING count() > 1 LIMIT {limit:UInt32}",
        {"since": since_ms, "limit": _MAX_TWINS},
    )
    if not rows:
        return 0
    groups: defaultdict[Identity, list[StoredCall]] = defaultdict(list)
    for stored in find(ch, [call_id for (call_id,) in rows]):
        groups[identity(stored.call)].append(stored)
    twins = [sorted(group, key=lambda s: (s.call.started_at, s.project)) for group in groups.values() if len(group) > 1]
    kept, removed = [], []
    for first, *others in twins:
        together = reduce(merge, (other.priced() for other in others))
        kept += replacement(first, together, received_at=max(other.received_at for other in others))
        removed += [removal(other) for other in others]
    write(ch, kept)
    write(ch, removed)
    return len(twins)


def _join_repeats(ch: Connection, mark: hourly.Watermark) -> int:
    """Make one row of the rows in which two observers saw one call under different identities; returns how many calls.

    Insert does it for what it can see: this is for a call of ours that came after another instrumentation's span.
    """
    since_ms = max(mark.safe_ms, int((datetime.now(UTC) - _TWINS_WITHIN).timestamp() * 1000))
    recent = "stored_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
    parameters: dict[str, Any] = {"since": since_ms}
    stored = ch.query(
        "hours_stored",
        f"SELECT DISTINCT toUnixTimestamp(toStartOfHour(started_at)) FROM llm_calls WHERE {recent}",
        parameters,
    )
    hours = {datetime.fromtimestamp(hour, UTC) + timedelta(hours=shift) for (hour,) in stored for shift in (-1, 0, 1)}
    within = "toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))}"
    parameters["hours"] = hours_parameter(hours)
    # The one column that tells at little cost whether there is anything to look for.
    if not ch.query(
        "foreign", f"SELECT 1 FROM llm_calls WHERE {within} AND startsWith(source, 'otlp:') LIMIT 1", parameters
    ):
        return 0
    foreign = "startsWith(source, 'otlp:')"
    joined = 0
    for name, among, several in (
        # A reply's id under two names of its provider is found by the id: its observers may not share a trace.
        ("trace_id", f"SELECT trace_id FROM llm_calls WHERE {recent}", "uniqExact(observer) > 1"),
        ("response_id", f"SELECT response_id FROM llm_calls WHERE {within} AND {foreign}", "uniqExact(provider) > 1"),
    ):
        last = ""
        while True:
            found = ch.query(
                f"repeats_by_{name}",
                f"SELECT hex({name}) AS place, groupUniqArray(call_id) FROM (SELECT {name}, call_id, "
                "argMax(source, revision) AS observer, argMax(provider_name, revision) AS provider FROM llm_calls "
                f"WHERE {within} AND {name} GLOBAL IN ({among}) AND {name} != '' "
                f"GROUP BY {name}, call_id HAVING argMax(is_deleted, revision) = 0) "
                f"GROUP BY place HAVING place > {{last:String}} AND {several} "
                "AND countIf(startsWith(observer, 'otlp:')) > 0 ORDER BY place LIMIT {limit:UInt32}",
                {**parameters, "last": last, "limit": _MAX_TRACES},
            )
            joined += _join_these(ch, [call for _, calls in found for call in calls], hours)
            if len(found) < _MAX_TRACES:
                break
            last = found[-1][0]
    return joined + _join_these(ch, _apart(ch, within, parameters), hours)


def _apart(ch: Connection, within: str, parameters: Mapping[str, Any]) -> list[int]:
    """Calls of ours and spans of observers that stand in traces of their own, as far as they may be the same."""
    apart = {"apart": sorted(same.APART)}
    any_there = f"SELECT 1 FROM llm_calls WHERE {within} AND source IN {{apart:Array(String)}} LIMIT 1"
    if not ch.query("any_apart", any_there, {**parameters, **apart}):
        return []
    root = "parent_span_id = toFixedString('', 8)"
    columns = "call_id, started_at, duration_us, output_tokens, stored_at"
    found = ch.query(
        "apart",
        f"SELECT DISTINCT span.call_id, call.call_id FROM (SELECT {columns} FROM llm_calls FINAL "
        f"WHERE {within} AND {root} AND source IN {{apart:Array(String)}}) AS span INNER JOIN (SELECT {columns} "
        f"FROM llm_calls FINAL WHERE {within} AND {root} AND source = 'sdk') AS call USING (output_tokens) "
        "WHERE call.started_at >= span.started_at - INTERVAL 10 MILLISECOND "
        "AND call.started_at <= span.started_at + toIntervalMicrosecond(span.duration_us) "
        "AND greatest(span.stored_at, call.stored_at) >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')",
        {**parameters, **apart},
    )
    return list({call for pair in found for call in pair})


def _join_these(ch: Connection, ids: Sequence[int], hours: Iterable[datetime]) -> int:
    rows: dict[Identity, StoredCall] = {}
    for start in range(0, len(ids), _MAX_TWINS):
        rows |= {identity(found.call): found for found in find(ch, ids[start : start + _MAX_TWINS], hours)}
    kept, removed, joined = [], [], 0
    for group in twins.groups(list(rows.values())):
        removed += [removal(rows[identity(one.call)]) for one in group.gone]
        if group.keeper is not None and group.whole is not None:
            standing = rows[identity(group.keeper.call)]
            received = max(rows[identity(one.call)].received_at for one in (group.keeper, *group.gone))
            kept += replacement(standing, group.whole, received_at=received)
        joined += 1
    write(ch, kept)
    write(ch, removed)
    return joined
