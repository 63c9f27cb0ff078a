"""How long single calls are kept: a TTL on `llm_calls`, by whole hours. The hourly sums are kept for ever.

An hour whose calls have begun to expire must not be summed again, or its sums would shrink: frozen() tells which hours
those are. A call that arrives after it has expired is not stored by the engine. Never here: deleting.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.migrate import Layout, render

SHORTEST = timedelta(days=1)
"""The shortest retention; younger hours are never frozen, which needs no look at the table."""


def kept_days(ch: Connection) -> int | None:
    """After how many days a call expires; None when calls are kept for ever. Raises StoreError."""
    ((days,),) = ch.query(
        "retention",
        "SELECT max(toUInt32OrZero(extract("
        r"engine_full, 'TTL toStartOfHour\\(started_at\\) \\+ toIntervalDay\\((\\d+)'))) FROM system.tables "
        "WHERE database = {database:String} AND name IN ('llm_calls', 'llm_calls_local')",
        {"database": ch.database},
    )
    return int(days) or None


def keep(ch: Connection, days: int | None, *, layout: Layout = "single") -> bool:
    """Keep calls for so many days from now on, None: for ever. Whether that changed anything. Raises StoreError.

    What has expired by then goes with the engine's merges, in the background.
    """
    if kept_days(ch) == days:
        return False
    what = "REMOVE TTL" if days is None else f"MODIFY TTL toStartOfHour(started_at) + toIntervalDay({days:d})"
    ch.command("retention", render(f"ALTER TABLE $database.llm_calls$local $on_cluster {what}", layout, ch.database))
    return True


def frozen(ch: Connection, hours: Iterable[datetime]) -> set[datetime]:
    """Those of the hours whose calls expire and that have their sums. Raises StoreError."""
    now = datetime.now(UTC)
    old = [hour for hour in hours if hour < now - SHORTEST]
    days = kept_days(ch) if old else None
    if days is None:
        return set()
    # An hour early: the engine's clock may be ahead of ours.
    expired = [int(hour.timestamp()) for hour in old if hour < now - timedelta(days=days) + timedelta(hours=1)]
    if not expired:
        return set()
    rows = ch.query(
        "summed_hours",
        "SELECT DISTINCT toUnixTimestamp(hour) FROM llm_calls_generations "
        "WHERE toUnixTimestamp(hour) IN {hours:Array(UInt32)}",
        {"hours": expired},
    )
    return {datetime.fromtimestamp(hour, UTC) for (hour,) in rows}
