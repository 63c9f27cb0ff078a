"""Taking out every call of one user or of one project, for good: from the calls, from the sums, from the disk.

The rows are rewritten away by a mutation, whose text holds only a hash of the id; the parts that still held them are
removed as soon as nobody reads them, and their absence is what proven() looks at. Sums are then made again wherever
they no longer agree with the calls. Running it again after it died finishes it. Never here: Django's side, backups.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from spendwatch.clickhouse import rollup
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.migrate import Layout, render
from spendwatch.errors import StoreError

Kind = Literal["user", "project"]

_COLUMN: dict[Kind, str] = {"user": "user_id", "project": "project"}
_SUMS = ("llm_calls_hourly", "llm_calls_daily")
_MAX_IDS = 5_000
_POLL_S = 0.5
PATIENCE_S = 600.0
"""How long a mutation, and how long the removal of old parts, is waited for."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of a user or project: calls, their versions among the rows, when they started, in which sessions."""

    calls: int
    rows: int
    first: datetime | None
    last: datetime | None
    sessions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was taken out: calls, and the hours whose sums were made again. left_on_disk: parts not yet removed."""

    calls: int
    hours: int
    left_on_disk: int


def held(ch: Connection, kind: Kind, name: str) -> Held:
    """What is held of this user or project. Raises StoreError; ValueError for an empty name."""
    if not name:
        raise ValueError(f"expected the {kind}'s id, found an empty one")
    where = f"{_COLUMN[kind]} = {{name:String}}"
    ((rows, first, last),) = ch.query(
        "held", f"SELECT count(), min(started_at), max(started_at) FROM llm_calls WHERE {where}", {"name": name}
    )
    ((calls,),) = ch.query("held_calls", f"SELECT count() FROM llm_calls FINAL WHERE {where}", {"name": name})
    sessions = ch.query(
        "held_sessions", f"SELECT DISTINCT session_id FROM llm_calls WHERE {where} AND session_id != ''", {"name": name}
    )
    return Held(calls, rows, first if rows else None, last if rows else None, tuple(s for (s,) in sessions))


def delete(ch: Connection, kind: Kind, name: str, *, disk_s: float = PATIENCE_S) -> Deleted:
    """Take it all out. Returns when no row of it can be read any more and the sums are right.

    disk_s: how long to wait until the parts that held it are off the disk too; what is left_on_disk the engine removes
    within minutes. A project's sums go too, also those of hours whose calls have expired.
    Raises StoreError, ValueError.
    """
    before = held(ch, kind, name)
    layout = _layout(ch)
    digest = sha256(name.encode()).hexdigest()
    condition = f"SHA256({_COLUMN[kind]}) = unhex('{digest}')"
    tables = ["llm_calls", *(_SUMS if kind == "project" else ())]
    # A version from before the user was known would come back once the later one is gone.
    others = _other_versions(ch, name) if kind == "user" else []
    for start in range(0, len(others) or 1, _MAX_IDS):
        ids = others[start : start + _MAX_IDS]
        also = f" OR call_id IN ({', '.join(map(str, ids))})" if ids else ""
        for table in tables:
            _alter(ch, layout, table, f"DELETE WHERE {condition}{also}")
    _await(lambda: _unfinished(ch, layout, tables), PATIENCE_S)
    hours = rollup.mend(ch)
    left = _remove_old_parts(ch, layout, tables, disk_s)
    after = held(ch, kind, name)
    if after.rows:
        raise StoreError(
            f"expected no row of this {kind} any more, found {after.rows}: calls came in meanwhile. Stop what sends "
            "them (revoke the token, or leave the user out of the app's tags), then run this again.",
            permanent=True,
        )
    return Deleted(before.calls, hours, left)


def _other_versions(ch: Connection, user: str) -> list[int]:
    """The calls that a row says to be this user's and another row does not."""
    rows = ch.query(
        "other_versions",
        "SELECT call_id FROM llm_calls WHERE call_id GLOBAL IN (SELECT call_id FROM llm_calls WHERE user_id = "
        "{user:String}) GROUP BY call_id HAVING countIf(user_id != {user:String}) > 0 ORDER BY call_id",
        {"user": user},
    )
    return [call for (call,) in rows]


def _layout(ch: Connection) -> Layout:
    return "cluster" if ch.query("layout", "SHOW TABLES LIKE 'llm_calls_local'") else "single"


def _alter(ch: Connection, layout: Layout, table: str, what: str) -> None:
    ch.command("delete_data", render(f"ALTER TABLE $database.{table}$local $on_cluster {what}", layout, ch.database))


def _everywhere(layout: Layout, table: str) -> str:
    return f"clusterAllReplicas('{{cluster}}', {table})" if layout == "cluster" else table


def _names(layout: Layout, tables: Sequence[str]) -> list[str]:
    return [table + ("_local" if layout == "cluster" else "") for table in tables]


def _unfinished(ch: Connection, layout: Layout, tables: Sequence[str]) -> int:
    """Mutations under way. Raises StoreError when one fails."""
    rows = ch.query(
        "mutations",
        f"SELECT latest_fail_reason FROM {_everywhere(layout, 'system.mutations')} "
        "WHERE database = {database:String} AND table IN {tables:Array(String)} AND NOT is_done",
        {"database": ch.database, "tables": _names(layout, tables)},
    )
    for (reason,) in rows:
        if reason:
            raise StoreError(f"ClickHouse could not delete (it goes on trying): {' '.join(str(reason).split())[:300]}")
    return len(rows)


def _remove_old_parts(ch: Connection, layout: Layout, tables: Sequence[str], patience_s: float) -> int:
    """Have the parts from before removed in a minute, not in ten; how many are left when patience ends."""
    old = _inactive(ch, layout, tables)
    if not old:
        return 0
    for table in tables:
        _alter(ch, layout, table, "MODIFY SETTING old_parts_lifetime = 1")
    try:
        _await(lambda: len(old & _inactive(ch, layout, tables)), patience_s, or_else=False)
    finally:
        for table in tables:
            _alter(ch, layout, table, "RESET SETTING old_parts_lifetime")
    return len(old & _inactive(ch, layout, tables))


def _inactive(ch: Connection, layout: Layout, tables: Sequence[str]) -> set[tuple[str, str]]:
    rows = ch.query(
        "old_parts",
        f"SELECT table, name FROM {_everywhere(layout, 'system.parts')} "
        "WHERE database = {database:String} AND table IN {tables:Array(String)} AND NOT active",
        {"database": ch.database, "tables": _names(layout, tables)},
    )
    return {(table, part) for table, part in rows}


def _await(left: Callable[[], int], patience_s: float, *, or_else: bool = True) -> None:
    until = time.monotonic() + patience_s
    while left():
        if time.monotonic() > until:
            if or_else:
                raise StoreError(
                    f"expected ClickHouse to delete within {patience_s:.0f} s, found it still at work. It goes on by "
                    "itself; run this again to see it through."
                )
            return
        time.sleep(_POLL_S)
