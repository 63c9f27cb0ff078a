"""Which rows of a table may be about a call that another row is about too, here or in the store.

They have to be laid beside each other, as objects (rows.py, twins.py, merge.py); all others can be written as they are.
A row too many costs time, a row too few would count a call twice: so whoever shares an id or, where another
instrumentation is at work, a trace or a reply's id, counts as meeting. Never here: what becomes of those.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendwatch.calls import PricedCall, call_id
from spendwatch.clickhouse import same
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.columns import from_micros
from spendwatch.clickhouse.lookup import HOUR_US, MAX_IDS, find_ids, find_traces
from spendwatch.clickhouse.table import Coded, Index, Table, Texts

Mask = NDArray[np.bool_]


def apart(ch: Connection, tables: Sequence[Table], calls: Sequence[PricedCall]) -> tuple[Table, list[PricedCall]]:
    """(the rows that meet no other, the calls of those that may). calls: what is to be stored together with them.

    Raises StoreError.
    """
    table = Table.join(tables)
    meets = _ids_here(table, calls)
    others = _of_others(table)
    if others.any() or any(same.foreign(call.call) for call in calls):
        meets |= _traces_here(table, others, calls) | _replies_here(table, calls)
    meets |= _ids_there(ch, table, ~meets)
    meets |= _traces_there(ch, table, others & ~meets)
    if not meets.any():
        return table, []
    return table.take(np.flatnonzero(~meets)), [table.call(row) for row in np.flatnonzero(meets).tolist()]


def _of_others(table: Table) -> Mask:
    sources = table.columns["source"]
    assert isinstance(sources, Coded)  # noqa: S101  # by its type
    return np.array([same.is_foreign(source) for source in sources.values], np.bool_).take(sources.codes)


def _ids_here(table: Table, calls: Sequence[PricedCall]) -> Mask:
    ids = table.numbers("call_id")
    return _repeated(ids) | np.isin(ids, np.array([call_id(call.call) for call in calls], np.uint64))


def _repeated(values: NDArray[Any]) -> Mask:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts[which] > 1)


def _traces_here(table: Table, others: Mask, calls: Sequence[PricedCall]) -> Mask:
    """Rows in a trace of several calls, one of which another instrumentation saw."""
    mine = _short(table.numbers("trace_id"))
    theirs = _short(np.array([bytes.fromhex(call.call.trace_id) for call in calls], "V16"))
    outer = np.array([same.foreign(call.call) for call in calls], np.bool_)
    traces = np.concatenate([mine, theirs])
    seen = np.unique(traces[np.concatenate([others, outer])])
    return np.asarray(_repeated(traces)[: len(mine)] & np.isin(mine, seen))


def _short(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Eight bytes of each trace id: that two which differ agree in them does no harm."""
    halves = ids.view("<u8").reshape(-1, 2)
    return np.asarray(halves[:, 0] ^ (halves[:, 1] << np.uint64(1)))


def _replies_here(table: Table, calls: Sequence[PricedCall]) -> Mask:
    """Rows whose reply's id stands somewhere else too, maybe under another name of the provider."""
    texts = _texts(table)
    seen: dict[bytes, int] = {}
    for text in [*texts, *((call.call.response_id or "").encode() for call in calls)]:
        seen[text] = seen.get(text, 0) + 1
    return np.array([text != b"" and seen[text] > 1 for text in texts], np.bool_)


def _texts(table: Table) -> list[bytes]:
    replies = table.columns["response_id"]
    assert isinstance(replies, Texts)  # noqa: S101  # by its type
    octets = replies.octets.tobytes()
    ends = zip(replies.starts.tolist(), replies.lengths.tolist(), strict=True)
    return [octets[start : start + length] for start, length in ends]


def _ids_there(ch: Connection, table: Table, rows: Mask) -> Mask:
    replies = table.columns["response_id"]
    assert isinstance(replies, Texts)  # noqa: S101  # by its type
    ids = table.numbers("call_id")
    # A call known only by its span repeats its sort key, so that the engine keeps one of them.
    asked = np.flatnonzero(rows & (replies.lengths > 0))
    found: list[int] = []
    for start in range(0, len(asked), MAX_IDS):
        part = asked[start : start + MAX_IDS]
        found += [call for call, _ in find_ids(ch, ids[part].tolist(), _hours(table, part))]
    return np.isin(ids, np.array(found, np.uint64)) if found else np.zeros(table.rows, np.bool_)


def _traces_there(ch: Connection, table: Table, rows: Mask) -> Mask:
    """Others' rows in a trace that has rows in the store."""
    out = np.zeros(table.rows, np.bool_)
    asked = np.flatnonzero(rows)
    if not asked.size:
        return out
    traces = table.numbers("trace_id")
    found = find_traces(ch, [traces[row].tobytes().hex() for row in asked.tolist()], _hours(table, asked))
    if found:
        known = np.array([bytes.fromhex(trace) for trace in found], "V16")
        out[asked] = np.isin(_short(traces[asked]), _short(known))
    return out


def _hours(table: Table, rows: Index) -> list[Any]:
    """The hours in which these calls started, and those before and after."""
    own = np.unique(table.numbers("started_at")[rows] // HOUR_US)
    return [from_micros(int(hour) * HOUR_US) for hour in np.unique(np.concatenate([own - 1, own, own + 1]))]
