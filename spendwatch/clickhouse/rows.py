"""Calls into llm_calls: columnar inserts that any retry, replay or second observer leaves exact.

A call is one row, whoever sends it and however often. Before a batch is written, the calls of it that carry a reply's
id are looked up; where a row of the same generation stands already, the two are merged field by field and the result
takes that row's place, with a higher revision. What changes nothing is not written. Calls known only by their span
repeat their sort key exactly, so the engine itself keeps one of them. Another instrumentation's span is laid beside the
rows of its trace first: where it repeats one of them it goes into that. Never here: SQL of questions, prices, retries.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from spendwatch.calls import LLMCall, PricedCall, call_id
from spendwatch.clickhouse import same, twins
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.columns import TYPES, from_micros, micros, values
from spendwatch.clickhouse.lookup import HOUR_US, MAX_IDS, find, hours_parameter
from spendwatch.clickhouse.merge import merge
from spendwatch.clickhouse.stored import StoredCall, normalise

if TYPE_CHECKING:
    from spendwatch.clickhouse.table import Table

__all__ = ["find", "hours_parameter", "insert", "merge"]

TABLE = "llm_calls"
MAX_BLOCK_ROWS = 50_000
"""Bigger blocks cost gigabytes in the engine and bring nothing."""
_MAX_TRACES = 1_000
_STARTED_AT = list(TYPES).index("started_at")

Identity = tuple[str, ...]
Row = tuple[Any, ...]


def insert(
    ch: Connection, calls: Sequence[PricedCall], *, received_at: datetime, tables: "Sequence[Table]" = ()
) -> None:
    """Store the calls; returns after the commit. received_at: when the ingest got them, aware UTC.

    tables: further calls, as rows already. Those that may meet others are made objects again.

    Each block lies within one month, so that it is stored whole or not at all. Raises StoreError; then sending the same
    calls again is safe and leaves the totals exact.
    """
    table: Table | None = None
    if tables:
        # Only the server makes tables: numpy is not needed where an app writes its own calls.
        from spendwatch.clickhouse import meeting

        table, met = meeting.apart(ch, tables, calls)
        calls = [*calls, *met]
    new = _merged_by_identity(calls)
    changed, gone = _repeated(ch, new, received_at)
    rows = {key: row_of(call, received_at=received_at) for key, call in new.items()}
    for key, stored in _standing(ch, new, rows).items():
        del rows[key]
        changed += replacement(stored, normalise(new[key]), received_at=received_at)
    finished = [*rows.values(), *changed]
    if table is None:
        write(ch, finished)
    else:
        write_table(ch, table, finished, received_at=received_at)
    # Written last: dying in between leaves a call too many until it is sent again or rolled up, never too few.
    write(ch, gone)


def identity(call: LLMCall) -> Identity:
    """The ids behind call_id, to tell a hash collision from the same call."""
    if call.response_id:
        return call.provider_name, call.response_id
    return call.trace_id, call.span_id, ""


def replacement(standing: StoredCall, call: PricedCall, *, received_at: datetime) -> list[Row]:
    """The rows to write so that the row that stands holds what the call adds to it; none when it adds nothing.

    The row keeps its place: its sort key is the one under which the call was first stored.
    """
    old = standing.priced()
    merged = merge(old, call)
    tags = replace(merged.call.tags, project=standing.project or None)
    merged = replace(merged, call=replace(merged.call, started_at=old.call.started_at, tags=tags))
    if replace(merged, revision=old.revision) == old:
        return []
    revision = max(call.revision, old.revision + 1)
    rows = []
    if merged.call.tags.session != old.call.tags.session:
        # In a cluster the session decides the shard: take the old row away there. On one node the row below comes to
        # stand in the same place and replaces this one too.
        rows.append(removal(standing, revision=revision))
        revision += 1
    rows.append(row_of(replace(merged, revision=revision), received_at=received_at, project=standing.project))
    return rows


def removal(standing: StoredCall, *, revision: int | None = None) -> Row:
    """The row that takes a row away. revision: above the standing one's; by default the next."""
    above = standing.revision + 1 if revision is None else revision
    return row_of(
        replace(standing, revision=above), received_at=standing.received_at, project=standing.project, is_deleted=True
    )


def write(ch: Connection, rows: Iterable[Row]) -> None:
    """Insert finished rows, a block for each month and MAX_BLOCK_ROWS. Raises StoreError."""
    for block in _blocks(rows):
        ch.insert("insert", TABLE, list(TYPES), list(TYPES.values()), list(zip(*block, strict=True)))


def write_table(ch: Connection, table: "Table", rows: Sequence[Row], *, received_at: datetime) -> None:
    """Insert a table and finished rows together, in as few blocks as write() does. Raises StoreError."""
    whole = table.joined_by(rows, received_ms=micros(received_at) // 1000)
    for block in whole.blocks(MAX_BLOCK_ROWS):
        ch.insert_block("insert", TABLE, list(TYPES), block.native())


def hour_of(time: datetime) -> datetime:
    """The start of the UTC hour that holds time."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _merged_by_identity(calls: Iterable[PricedCall]) -> dict[Identity, PricedCall]:
    out: dict[Identity, PricedCall] = {}
    for call in calls:
        key = identity(call.call)
        other = out.get(key)
        out[key] = call if other is None else merge(normalise(other), normalise(call))
    return out


def row_of(call: PricedCall, *, received_at: datetime, project: str | None = None, is_deleted: bool = False) -> Row:
    """The row of a call, in the order of TYPES. project: whose it is; by default what its tags say."""
    tags = call.call.tags
    return (
        call_id(call.call),
        call.revision,
        int(is_deleted),
        micros(call.call.started_at),
        micros(received_at) // 1000,
        (tags.project or "") if project is None else project,
        tags.session or "",
        *values(call),
    )


def _standing(
    ch: Connection, calls: Mapping[Identity, PricedCall], rows: Mapping[Identity, Row]
) -> dict[Identity, StoredCall]:
    """The rows that stand for these calls already, by identity. One query for a batch in which all calls are new."""
    wanted = [rows[key] for key, call in calls.items() if call.call.response_id]
    out: dict[Identity, StoredCall] = {}
    for start in range(0, len(wanted), MAX_IDS):
        part = wanted[start : start + MAX_IDS]
        own = {row[_STARTED_AT] // HOUR_US for row in part}
        hours = {hour + shift for hour in own for shift in (-1, 0, 1)}
        for stored in find(ch, [row[0] for row in part], [from_micros(hour * HOUR_US) for hour in hours]):
            key = identity(stored.call)
            # A row whose id collides with that of a call here is another call's.
            if key in calls:
                out[key] = stored
    return out


def _repeated(ch: Connection, new: dict[Identity, PricedCall], received_at: datetime) -> tuple[list[Row], list[Row]]:
    """Take what repeats another call out of the new ones: the rows to write instead, and those that take rows away."""
    outer = [call.call for call in new.values() if same.foreign(call.call)]
    if not outer:
        return [], []
    stored = {identity(found.call): found for found in _beside(ch, outer)}
    changed, gone = [], []
    for group in twins.groups([*new.values(), *(found for key, found in stored.items() if key not in new)]):
        for one in group.gone:
            key = identity(one.call)
            new.pop(key, None)
            if key in stored:
                gone.append(removal(stored[key]))
            elif not same.foreign(one.call):
                # Sent again it comes alone, and nothing would tell that it is part of another row by then.
                project = one.call.tags.project or ""
                away = replace(one, revision=one.revision + 1)
                gone.append(row_of(away, received_at=received_at, project=project, is_deleted=True))
        if group.keeper is None or group.whole is None:
            continue
        key = identity(group.keeper.call)
        if key in stored:
            new.pop(key, None)
            changed += replacement(stored[key], group.whole, received_at=received_at)
        else:
            # Known only by its span it is not looked up when it is sent again: that must not replace what it is now.
            above = 0 if group.keeper.call.response_id else 1
            new[key] = replace(group.whole, revision=group.whole.revision + above)
    return changed, gone


def _beside(ch: Connection, calls: Sequence[LLMCall]) -> list[StoredCall]:
    """The rows in the traces of these calls, an hour to each side. Raises StoreError."""
    out: dict[Identity, StoredCall] = {}
    for start in range(0, len(calls), _MAX_TRACES):
        part = calls[start : start + _MAX_TRACES]
        own = {micros(call.started_at) // HOUR_US for call in part}
        hours = [from_micros((hour + shift) * HOUR_US) for hour in own for shift in (-1, 0, 1)]
        hits = ch.query(
            "find_beside",
            "SELECT DISTINCT call_id FROM llm_calls WHERE toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))} "
            "AND trace_id IN (SELECT toFixedString(unhex(arrayJoin({traces:Array(String)})), 16))",
            {"hours": hours_parameter(hours), "traces": sorted({call.trace_id for call in part})},
        )
        ids = [call for (call,) in hits]
        for at in range(0, len(ids), MAX_IDS):
            out |= {identity(found.call): found for found in find(ch, ids[at : at + MAX_IDS], hours)}
    return list(out.values())


def _blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    hours: dict[int, list[Row]] = {}
    for found in rows:
        hour = found[_STARTED_AT] // HOUR_US
        known = hours.get(hour)
        if known is None:
            hours[hour] = [found]
        else:
            known.append(found)
    months: dict[tuple[int, int], list[Row]] = {}
    for hour, some in hours.items():
        time = from_micros(hour * HOUR_US)
        months.setdefault((time.year, time.month), []).extend(some)
    for month in sorted(months):
        block = months[month]
        for start in range(0, len(block), MAX_BLOCK_ROWS):
            yield block[start : start + MAX_BLOCK_ROWS]
