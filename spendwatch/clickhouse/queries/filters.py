"""WHERE clauses: windows and scopes as SQL with server-side parameters. A name reaches the text only after it was found
in the fixed list of dimensions; a value never does."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from spendwatch.calls import DIMENSIONS, Scope, Window, check_scope
from spendwatch.clickhouse.columns import micros

HOUR = timedelta(hours=1)


def started_within(window: Window) -> tuple[str, dict[str, Any]]:
    """The calls that started in the window. Prunes by the primary key."""
    return (
        "started_at >= fromUnixTimestamp64Micro({start:Int64}, 'UTC') "
        "AND started_at < fromUnixTimestamp64Micro({end:Int64}, 'UTC')",
        {"start": micros(window.start), "end": micros(window.end)},
    )


def in_scope(scope: Scope) -> tuple[str, dict[str, Any]]:
    """The calls that match every dimension of the scope. Raises ValueError for an unknown dimension."""
    check_scope(scope)
    names = sorted(scope)
    sql = " AND ".join(f"{name} IN {{scope_{name}:Array(String)}}" for name in names)
    return sql or "1", {f"scope_{name}": list(scope[name]) for name in names}


def in_sort_key(scope: Scope) -> str:
    """The part of in_scope() that may stand in PREWHERE: in these columns no two versions of a row differ."""
    sql = " AND ".join(
        f"{name} IN {{scope_{name}:Array(String)}}" for name in ("project", "session_id") if name in scope
    )
    return sql or "1"


def check_dimensions(names: Sequence[str]) -> None:
    """Raise ValueError for a name that is not a dimension of spend."""
    for name in names:
        if name not in DIMENSIONS:
            raise ValueError(f"{name!r} is not a dimension of spend; use one of {', '.join(DIMENSIONS)}")


def floor_hour(time: datetime) -> datetime:
    """The start of the UTC hour that holds time."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def ceil_hour(time: datetime) -> datetime:
    """The first full UTC hour at or after time."""
    down = floor_hour(time)
    return down if down == time else down + HOUR
