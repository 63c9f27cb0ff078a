"""Sums of spend, exact to the last digit: whole days, then whole hours of the rollups where they may be believed, the
calls themselves elsewhere.

The calls are read for the hours that are dirty, for the hours at the window's edges that it holds only in part, and for
questions about dimensions that the rollups do not keep (users, sessions).
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from spendwatch.calls import Scope, Window
from spendwatch.clickhouse import daily, hourly
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.queries.filters import (
    ceil_hour,
    check_dimensions,
    floor_hour,
    in_scope,
    in_sort_key,
    started_within,
)
from spendwatch.clickhouse.queries.types import SeriesPoint, Spend, SpendRow, Step
from spendwatch.clickhouse.rows import hours_parameter

_SPEND = (
    "effective_cost", "list_cost", "calls", "input_tokens", "output_tokens", "cache_read_input_tokens",
    "unpriced_calls",
)  # fmt: skip


def spend(ch: Connection, scope: Scope, window: Window) -> Spend:
    """What the calls of a scope that started in a window cost. Raises StoreError; ValueError for a wrong scope."""
    sql, parameters = _sums(ch, (), _SPEND, scope, window)
    (row,) = ch.query("spend", sql, parameters)
    return _spend(row)


def spend_by(
    ch: Connection, dimensions: Sequence[str], scope: Scope, window: Window, *, limit: int = 1000
) -> list[SpendRow]:
    """The spend of each combination of the dimensions' values, dearest first. Raises StoreError, ValueError."""
    check_dimensions(dimensions)
    keys = tuple(_Key(name, name, name, name) for name in dimensions)
    sql, parameters = _sums(ch, keys, _SPEND, scope, window)
    order = "".join(f", {key.alias}" for key in keys)
    rows = ch.query(
        "spend_by",
        f"{sql} ORDER BY sum_effective_cost DESC, sum_calls DESC{order} LIMIT {{limit:UInt32}}",
        {**parameters, "limit": limit},
    )
    count = len(keys)
    return [SpendRow(tuple(row[:count]), _spend(row[count:])) for row in rows]


def spend_series(
    ch: Connection, scope: Scope, window: Window, *, step: Step | str, by: str | None = None
) -> list[SeriesPoint]:
    """The spend of each UTC hour or day of a window, in order of time; steps without calls have no point.

    by: a dimension to split each point by. Raises StoreError, ValueError.
    """
    start_of = {Step.HOUR: "toStartOfHour({0}, 'UTC')", Step.DAY: "toStartOfDay({0}, 'UTC')"}[Step(step)]
    of_a_day = "toDateTime(day, 'UTC')" if Step(step) is Step.DAY else None
    keys = [_Key("start", start_of.format("hour"), start_of.format("started_at"), of_a_day)]
    if by is not None:
        check_dimensions([by])
        keys.append(_Key(by, by, by, by))
    sql, parameters = _sums(ch, tuple(keys), ("effective_cost", "calls"), scope, window)
    rows = ch.query("spend_series", f"{sql} ORDER BY " + ", ".join(key.alias for key in keys), parameters)
    return [
        SeriesPoint(start=_utc(row[0]), key=row[1] if by is not None else "", cost=_usd(row[-2]), calls=row[-1])
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class _Key:
    """What to group by: its alias, and how the hours, the calls and the days (None: not at all) say it."""

    alias: str
    in_hours: str
    in_calls: str
    in_days: str | None


def _sums(
    ch: Connection, keys: tuple[_Key, ...], measures: Sequence[str], scope: Scope, window: Window
) -> tuple[str, dict[str, Any]]:
    """A SELECT of the keys and of sum_<measure> for each measure, and its parameters."""
    filters, parameters = in_scope(scope)
    within, times = started_within(window)
    parameters |= times
    needed = {*scope, *(key.in_calls for key in keys if key.in_calls == key.alias)}
    full = Window(ceil_hour(window.start), floor_hour(window.end))
    use_rollup = needed <= set(hourly.DIMENSIONS) and full.start < full.end
    mark = hourly.watermark(ch) if use_rollup else hourly.Watermark(None)
    keyed = f"{within} AND {in_sort_key(scope)}"
    parts = []
    if mark.through is not None:
        edges = {floor_hour(window.start)} if full.start != window.start else set()
        edges |= {full.end} if full.end != window.end else set()
        dirty = hourly.dirty_hours(ch, mark, full)
        by_day = all(key.in_days is not None for key in keys)
        days = daily.valid(ch, full, dirty) if by_day else []
        parameters |= {
            "dirty": hours_parameter(dirty),
            "days": daily.days_parameter(days),
            "raw_hours": hours_parameter(edges.union(dirty)),
        }
        if days:
            parts.append(_from_days(keys, measures, filters))
        spans = _between(full, days)
        if spans:
            sql, times = _within_spans(spans)
            parameters |= times
            parts.append(_from_hours(keys, measures, sql, filters))
        if edges or dirty:
            only = "toStartOfHour(started_at) IN {raw_hours:Array(DateTime('UTC'))}"
            parts.append(_from_calls(keys, measures, f"{keyed} AND {only}", filters))
    else:
        parts.append(_from_calls(keys, measures, keyed, filters))
    names = ", ".join([*(key.alias for key in keys), *(f"sum(part_{name}) AS sum_{name}" for name in measures)])
    grouped = f" GROUP BY {', '.join(key.alias for key in keys)}" if keys else ""
    return f"SELECT {names} FROM ({' UNION ALL '.join(parts)}){grouped}", parameters


def _between(full: Window, days: Sequence[date]) -> list[Window]:
    """The spans of a window of whole hours that lie outside these days, in order."""
    spans, start = [], full.start
    for day in days:
        begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if begins > start:
            spans.append(Window(start, begins))
        start = begins + timedelta(days=1)
    return [*spans, Window(start, full.end)] if start < full.end else spans


def _within_spans(spans: Sequence[Window]) -> tuple[str, dict[str, Any]]:
    """The hours of these spans. Prunes by the primary key."""
    ranges: list[str] = []
    parameters: dict[str, Any] = {}
    for number, span in enumerate(spans):
        first, last = f"first_{number}", f"last_{number}"
        ranges.append(
            f"(hour >= toDateTime({{{first}:UInt32}}, 'UTC') AND hour < toDateTime({{{last}:UInt32}}, 'UTC'))"
        )
        parameters |= {first: int(span.start.timestamp()), last: int(span.end.timestamp())}
    return f"({' OR '.join(ranges)})", parameters


def _from_days(keys: Sequence[_Key], measures: Sequence[str], filters: str) -> str:
    return (
        f"SELECT {_names(((key.in_days or '', key.alias) for key in keys), measures)} FROM llm_calls_daily "
        f"WHERE day IN {{days:Array(Date)}} AND {daily.NEWEST} AND {filters}"
    )


def _from_hours(keys: Sequence[_Key], measures: Sequence[str], within: str, filters: str) -> str:
    return (
        f"SELECT {_names(((key.in_hours, key.alias) for key in keys), measures)} FROM llm_calls_hourly "
        f"WHERE {within} AND hour NOT IN {{dirty:Array(DateTime('UTC'))}} "
        f"AND {hourly.NEWEST.format(where=f'WHERE {within}')} AND {filters}"
    )


def _names(keys: Iterable[tuple[str, str]], measures: Sequence[str]) -> str:
    # Other aliases than the columns' own: ClickHouse would read the alias where the sum means the column.
    return ", ".join([*(f"{sql} AS {alias}" for sql, alias in keys), *(f"{name} AS part_{name}" for name in measures)])


def _from_calls(keys: Sequence[_Key], measures: Sequence[str], keyed: str, filters: str) -> str:
    # PREWHERE comes before FINAL: right for columns of the sort key, and the other columns of other rows stay unread.
    names = ", ".join(
        [
            *(f"{key.in_calls} AS {key.alias}" for key in keys),
            *(f"{hourly.MEASURES[name]} AS part_{name}" for name in measures),
        ]
    )
    grouped = f" GROUP BY {', '.join(key.alias for key in keys)}" if keys else ""
    return f"SELECT {names} FROM llm_calls FINAL PREWHERE {keyed} WHERE {filters}{grouped}"


def _spend(row: Sequence[Any]) -> Spend:
    cost, list_cost, calls, input_tokens, output_tokens, cache_read, unpriced = row
    return Spend(
        cost=_usd(cost),
        list_cost=_usd(list_cost),
        calls=calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_input_tokens=cache_read,
        unpriced_calls=unpriced,
    )


def _usd(amount: Any) -> Decimal:
    return amount if isinstance(amount, Decimal) else Decimal(0)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
