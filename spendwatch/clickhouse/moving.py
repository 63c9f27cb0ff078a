"""Copying everything into another ClickHouse, day by day, while both serve: from the embedded store to a server.

A day's calls are read and written as they are, with every version and removal of them, so the other side comes to the
same row of each. What is equal already, hour by hour in count, tokens, money and revisions, is not sent: a copy that
died goes on where it was, and a last one, once nothing comes in any more, takes moments. Sums are made anew on the
other side; only those of hours whose calls have expired are copied. Never here: stopping and starting what writes.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby

from spendwatch.clickhouse import hourly, retention, rollup
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.columns import TYPES
from spendwatch.clickhouse.lookup import hours_parameter
from spendwatch.clickhouse.migrate import Layout, migrate
from spendwatch.clickhouse.rows import MAX_BLOCK_ROWS
from spendwatch.errors import StoreError

_ROLL_EVERY_ROWS = 2_000_000
_SUMS = (*hourly.DIMENSIONS, *hourly.MEASURES)


@dataclass(frozen=True, slots=True)
class Totals:
    """What must be equal on both sides. cost: USD as text, exact. state: a hash of the calls' ids and revisions."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost: str
    state: int


@dataclass(frozen=True, slots=True)
class Day:
    """One day's copy: what it holds, how many rows were sent for it (0: it was equal already)."""

    day: date
    totals: Totals
    sent: int


def copy(
    source: Connection, target: Connection, *, layout: Layout = "single", tell: Callable[[Day], object] = lambda _: None
) -> Totals:
    """Make the target hold what the source does; the totals of both. tell: is called after each day.

    Calls that the source gets meanwhile may be left to the next copy; of the days before today a difference is an
    error. Raises StoreError, ConfigError.
    """
    migrate(target, layout=layout)
    retention.keep(target, retention.kept_days(source), layout=layout)
    _copy_expired(source, target)
    unrolled = 0
    today = datetime.now(UTC).date()
    for day, hours in groupby(_hours(source), key=lambda hour: hour.date()):
        done = _copy_day(source, target, day, list(hours), is_open=day >= today)
        unrolled += done.sent
        if unrolled >= _ROLL_EVERY_ROWS:
            rollup.roll(target)
            unrolled = 0
        tell(done)
    rollup.roll(target)
    return sum_up(totals(target).values())


def totals(ch: Connection, hours: Sequence[datetime] | None = None) -> dict[datetime, Totals]:
    """The totals of each hour with calls (of these hours). Raises StoreError."""
    among = "1" if hours is None else "toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))}"
    rows = ch.query(
        "hour_totals",
        f"SELECT toUnixTimestamp(toStartOfHour(started_at)) AS hour, {hourly.MEASURES['calls']}, "
        f"{hourly.MEASURES['input_tokens']}, {hourly.MEASURES['output_tokens']}, "
        f"toString({hourly.MEASURES['effective_cost']}), groupBitXor(sipHash64(call_id, revision)) "
        f"FROM llm_calls FINAL WHERE {among} GROUP BY hour ORDER BY hour",
        {} if hours is None else {"hours": hours_parameter(hours)},
    )
    return {datetime.fromtimestamp(hour, UTC): Totals(*sums) for hour, *sums in rows}


def sum_up(several: Iterable[Totals]) -> Totals:
    """The totals of all of them."""
    calls, read, written, cost, state = 0, 0, 0, Decimal(0), 0
    for one in several:
        calls, read, written = calls + one.calls, read + one.input_tokens, written + one.output_tokens
        cost, state = cost + Decimal(one.cost), state ^ one.state
    return Totals(calls, read, written, str(cost), state)


def _copy_day(source: Connection, target: Connection, day: date, hours: list[datetime], *, is_open: bool) -> Day:
    here, there = totals(source, hours), totals(target, hours)
    sent = sum(_copy_hour(source, target, hour) for hour in hours if here.get(hour) != there.get(hour))
    if sent:
        there = totals(target, hours)
        here = totals(source, hours) if is_open else here
    found, expected = sum_up(there.values()), sum_up(here.values())
    if found != expected and not is_open:
        # A call that came in late for that day is no fault: it is there on both sides now, or the day is not equal.
        expected = sum_up(totals(source, hours).values())
        sent += sum(_copy_hour(source, target, hour) for hour in hours)
        found = sum_up(totals(target, hours).values())
        if found != expected:
            raise StoreError(
                f"{day}: expected {expected}, found {found} on the other side. If calls were deleted from the source "
                "meanwhile, delete them there too, or empty its tables; then copy again.",
                permanent=True,
            )
    return Day(day, found, sent)


def _copy_hour(source: Connection, target: Connection, hour: datetime) -> int:
    """Send every row of an hour, a block at a time, whatever the other side has of it; how many."""
    among, parameters = "toStartOfHour(started_at) = toDateTime({hour:UInt32}, 'UTC')", {"hour": int(hour.timestamp())}
    ((rows,),) = source.query("hour_rows", f"SELECT count() FROM llm_calls WHERE {among}", parameters)
    portions = -(-int(rows) // MAX_BLOCK_ROWS)
    for portion in range(portions):
        block = source.block(
            "copy_hour",
            f"SELECT {', '.join(TYPES)} FROM llm_calls WHERE {among} AND call_id % {{portions:UInt32}} = "
            "{portion:UInt32}",
            {**parameters, "portions": portions, "portion": portion},
        )
        target.insert_block("copy_hour", "llm_calls", list(TYPES), block)
    return int(rows)


def _hours(source: Connection) -> list[datetime]:
    rows = source.query(
        "hours_with_calls",
        "SELECT DISTINCT toUnixTimestamp(toStartOfHour(started_at)) AS hour FROM llm_calls ORDER BY hour",
    )
    return [datetime.fromtimestamp(hour, UTC) for (hour,) in rows]


def _copy_expired(source: Connection, target: Connection) -> None:
    """The sums of hours whose calls are gone, or going, which nobody can make again."""
    summed = source.query(
        "summed_hours",
        "SELECT toUnixTimestamp(hour), max(generation) FROM llm_calls_generations "
        "WHERE hour > toDateTime(0, 'UTC') GROUP BY hour ORDER BY hour",
    )
    known = dict(
        target.query(
            "summed_hours", "SELECT toUnixTimestamp(hour), max(generation) FROM llm_calls_generations GROUP BY hour"
        )
    )
    frozen = retention.frozen(source, [datetime.fromtimestamp(hour, UTC) for hour, _ in summed])
    wanted = [
        (hour, generation)
        for hour, generation in summed
        if datetime.fromtimestamp(hour, UTC) in frozen and known.get(hour) != generation
    ]
    columns = ["hour", "generation", "rolled_at", "provisional", *_SUMS]
    lines = ["hour", "generation", "rolled_through", "provisional"]
    for start in range(0, len(wanted), 24):
        some = wanted[start : start + 24]
        first, last = some[0][0], some[-1][0]
        among = (
            "hour IN {hours:Array(DateTime('UTC'))} AND (hour, generation) IN (SELECT hour, max(generation) "
            "FROM llm_calls_generations WHERE hour >= {first:DateTime('UTC')} AND hour < {end:DateTime('UTC')} "
            "GROUP BY hour)"
        )
        begin = datetime.fromtimestamp(first, UTC)
        end = datetime.fromtimestamp(last, UTC) + timedelta(hours=1)
        parameters = {
            "hours": hours_parameter(datetime.fromtimestamp(hour, UTC) for hour, _ in some),
            "first": hours_parameter([begin])[0],
            "end": hours_parameter([end])[0],
        }
        # The sums before the lines that put them in force.
        for table, names in (("llm_calls_hourly", columns), ("llm_calls_generations", lines)):
            block = source.block("copy_sums", f"SELECT {', '.join(names)} FROM {table} WHERE {among}", parameters)
            target.insert_block("copy_sums", table, names, block)
