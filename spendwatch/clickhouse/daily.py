"""The sums of whole UTC days, made from the sums of their hours: which of them may be believed, and making them.

A day stands for its hours as they were when it was summed; its line in llm_calls_daily_generations holds a hash of
their generations. valid() compares it with the hours of now, so a day whose hours have changed since is simply not
read, whenever and by whomever they were changed. Days are summed once they are over, the one that goes on never.
Never here: the calls themselves.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta

from clickhouse_connect.datatypes.registry import get_from_name

from spendwatch.calls import Window
from spendwatch.clickhouse import hourly
from spendwatch.clickhouse.client import Connection

_MAX_DAYS = 7
"""Days in one INSERT: bounds its time and memory when a whole history is summed."""

NEWEST = "(day, generation) GLOBAL IN (SELECT day, max(generation) FROM llm_calls_daily_generations GROUP BY day)"

# The hours of each day as they stand now: a hash of their generations, and whether one of them is yet to be rebuilt.
_HOURS = (
    "SELECT toDate(hour, 'UTC') AS day, groupBitXor(sipHash64(toUInt32(hour), newest)) AS hours, "
    "max(unfinished) AS changing FROM (SELECT hour, max(generation) AS newest, "
    "argMax(provisional, generation) AS unfinished FROM llm_calls_generations WHERE {where} GROUP BY hour) GROUP BY day"
)
_EVERY = "hour > toDateTime(0, 'UTC')"
_SUMMED = "SELECT day, argMax(hours, generation) AS hours FROM llm_calls_daily_generations WHERE {where} GROUP BY day"
_LINE = {
    "day": get_from_name("Date"),
    "generation": get_from_name("UInt64"),
    "hours": get_from_name("UInt64"),
}


def valid(ch: Connection, window: Window, dirty: Collection[datetime]) -> list[date]:
    """The days wholly inside a window whose sums are exact: none of their hours is dirty or has changed since.

    Raises StoreError.
    """
    first, last = _ceil_day(window.start), window.end.astimezone(UTC).date()
    if first >= last:
        return []
    among = "day >= {first_day:Date} AND day < {last_day:Date}"
    hours = _HOURS.format(
        where="hour >= toDateTime({first_day:Date}, 'UTC') AND hour < toDateTime({last_day:Date}, 'UTC')"
    )
    rows = ch.query(
        "valid_days",
        f"SELECT day FROM ({_SUMMED.format(where=among)}) AS summed "
        f"INNER JOIN ({hours}) AS standing USING (day, hours) ORDER BY day",
        {"first_day": first.isoformat(), "last_day": last.isoformat()},
    )
    changed = {hour.astimezone(UTC).date() for hour in dirty}
    return [day for (day,) in rows if day not in changed]


def roll(ch: Connection, now: datetime, generation: int) -> int:
    """Sum the days that are over and whose sums are missing or out of date; returns how many. Raises StoreError.

    generation: a number larger than any before it.
    """
    over = (now - timedelta(seconds=hourly.SETTLING_S)).astimezone(UTC).date()
    rows = ch.query(
        "due_days",
        f"SELECT day, standing.hours FROM ({_HOURS.format(where=_EVERY)}) AS standing "
        f"LEFT JOIN ({_SUMMED.format(where='1')}) AS summed USING (day) "
        "WHERE changing = 0 AND summed.hours != standing.hours AND day < {over:Date} ORDER BY day",
        {"over": over.isoformat()},
    )
    for start in range(0, len(rows), _MAX_DAYS):
        _rebuild(ch, rows[start : start + _MAX_DAYS], generation)
    return len(rows)


def _rebuild(ch: Connection, due: Sequence[tuple[date, int]], generation: int) -> None:
    """Write the sums of these days, then the lines that put them in force. A crash between leaves rows nobody reads."""
    dimensions, sums = ", ".join(hourly.DIMENSIONS), ", ".join(f"sum({name})" for name in hourly.MEASURES)
    among = "hour >= toDateTime({first:Date}, 'UTC') AND hour < toDateTime({last:Date}, 'UTC') + INTERVAL 1 DAY"
    days = [day for day, _ in due]
    ch.command(
        "rebuild_days",
        f"INSERT INTO llm_calls_daily (day, generation, {dimensions}, {', '.join(hourly.MEASURES)}) "
        f"SELECT toDate(hour, 'UTC') AS summed_day, {{generation:UInt64}}, {dimensions}, {sums} FROM llm_calls_hourly "
        f"WHERE {among} AND toDate(hour, 'UTC') IN {{days:Array(Date)}} "
        f"AND {hourly.NEWEST.format(where=f'WHERE {among}')} GROUP BY summed_day, {dimensions}",
        {
            "generation": generation,
            "first": min(days).isoformat(),
            "last": max(days).isoformat(),
            "days": days_parameter(days),
        },
    )
    lines = [(day, generation, hours) for day, hours in due]
    ch.insert(
        "commit_days",
        "llm_calls_daily_generations",
        list(_LINE),
        list(_LINE.values()),
        list(zip(*lines, strict=True)),
    )


def days_parameter(days: Collection[date]) -> list[str]:
    """Days as an Array(Date) parameter."""
    return [day.isoformat() for day in sorted(days)]


def _ceil_day(time: datetime) -> date:
    """The first whole UTC day at or after time."""
    moment = time.astimezone(UTC)
    day = moment.date()
    return day if moment == datetime(day.year, day.month, day.day, tzinfo=UTC) else day + timedelta(days=1)
