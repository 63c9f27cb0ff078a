"""Single calls: one of them, those of a statement's cell, those that just arrived, those still to be settled.

FINAL reads every column of every row that it may have to merge. So the calls are found by their narrow columns first,
and only theirs are read whole: PREWHERE comes before FINAL, which is right for columns of the sort key.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from datetime import UTC, date, datetime, timedelta

from spendwatch.calls import CallStatus, CostBasis, Window
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.columns import from_micros, micros
from spendwatch.clickhouse.lookup import MAX_IDS, find, hours_parameter, whole
from spendwatch.clickhouse.queries.filters import check_dimensions, started_within
from spendwatch.clickhouse.stored import SELECT, StoredCall, read

MODEL = "if(response_model != '', response_model, request_model)"
"""The model of a call on a statement: the one the reply named, else the one asked for."""


def call(ch: Connection, call_id: int) -> StoredCall | None:
    """One call by its identity, None when there is none. Raises StoreError."""
    found = find(ch, [call_id])
    return max(found, key=lambda stored: stored.revision, default=None)


def distinct(ch: Connection, dimension: str, window: Window, *, limit: int = 200) -> list[str]:
    """The values of a dimension in a window, most frequent first, known ones only. Raises StoreError, ValueError."""
    check_dimensions([dimension])
    within, parameters = started_within(window)
    rows = ch.query(
        "distinct",
        f"SELECT {dimension} FROM llm_calls WHERE {within} AND {dimension} != '' "
        f"GROUP BY {dimension} ORDER BY count() DESC, {dimension} LIMIT {{limit:UInt32}}",
        {**parameters, "limit": limit},
    )
    return [str(value) for (value,) in rows]


def cell_calls(
    ch: Connection,
    day: date,
    model: str,
    endpoint: str,
    key_hash: str,
    *,
    limit: int,
    provider_name: str = "openrouter",
) -> list[StoredCall]:
    """The calls of one cell of usage_cells, dearest first. Raises StoreError."""
    within, parameters = started_within(day_window(day))
    where = (
        f"provider_name = {{provider:String}} AND {MODEL} = {{model:String}} "
        "AND serving_provider = {endpoint:String} AND key_hash = {key:String}"
    )
    order = "ORDER BY effective_cost DESC, started_at, call_id LIMIT {limit:UInt32}"
    rows = ch.query(
        "cell_calls",
        f"SELECT {SELECT} FROM llm_calls FINAL PREWHERE {within} AND call_id GLOBAL IN "
        f"(SELECT call_id FROM llm_calls FINAL PREWHERE {within} WHERE {where} {order}) WHERE {where} {order}",
        {
            **parameters, "provider": provider_name, "model": model, "endpoint": endpoint, "key": key_hash,
            "limit": limit,
        },
    )  # fmt: skip
    return [read(row) for row in rows]


def calls_received(ch: Connection, since: datetime, until: datetime, *, limit: int) -> list[StoredCall]:
    """The calls that the ingest received in [since, until), by their start. Raises StoreError.

    A call that was merged with a later observation counts as received again.
    """
    times = {"since": micros(since) // 1000, "until": micros(until) // 1000}
    received = (
        "received_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') "
        "AND received_at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"
    )
    # Which hours first, by the index on received_at: FINAL can then read these hours alone.
    hours = ch.query(
        "hours_received",
        f"SELECT DISTINCT toUnixTimestamp(toStartOfHour(started_at)) FROM llm_calls WHERE {received}",
        times,
    )
    if not hours:
        return []
    among = "toStartOfHour(started_at) IN {hours:Array(DateTime('UTC'))}"
    rows = ch.query(
        "calls_received",
        f"SELECT {SELECT} FROM llm_calls FINAL PREWHERE {among} AND call_id GLOBAL IN "
        f"(SELECT call_id FROM llm_calls WHERE {among} AND {received}) WHERE {received} "
        "ORDER BY started_at, call_id LIMIT {limit:UInt32}",
        {
            **times,
            "hours": hours_parameter(datetime.fromtimestamp(hour, UTC) for (hour,) in hours),
            "limit": limit,
        },
    )
    return [read(row) for row in rows]


def unsettled(ch: Connection, provider_name: str, window: Window, *, limit: int) -> list[StoredCall]:
    """The provider's calls with a reply's id whose cost is unknown or that the app left early, oldest first.

    They can be asked for by id; once settled they are gone from here. Raises StoreError.
    """
    out: list[StoredCall] = []
    at_once = min(MAX_IDS, 2 * limit + 100)
    after: tuple[int, int] | None = None
    while len(out) < limit:
        start = window.start if after is None else from_micros(after[0])
        within, parameters = started_within(Window(start, window.end))
        if after is not None:
            within += " AND (toUnixTimestamp64Micro(started_at), call_id) > ({after_time:Int64}, {after_call:UInt64})"
            parameters |= {"after_time": after[0], "after_call": after[1]}
        # Without FINAL, so also calls that have been settled since: these are told by their rows of now.
        hits = ch.query(
            "unsettled",
            "SELECT DISTINCT call_id, toUnixTimestamp(toStartOfHour(started_at)), toUnixTimestamp64Micro(started_at) "
            f"FROM llm_calls WHERE {within} AND (isNull(effective_cost) OR status = 'aborted') "
            "AND provider_name = {provider:String} AND notEmpty(response_id) AND cost_basis != {settled:String} "
            "ORDER BY started_at, call_id LIMIT {limit:UInt32}",
            {
                **parameters, "provider": provider_name, "settled": CostBasis.SETTLED.value, "limit": at_once,
            },
        )  # fmt: skip
        found = whole(ch, [(call, hour) for call, hour, _ in hits])
        out += [stored for stored in found if _is_unsettled(stored, provider_name)]
        if len(hits) < at_once:
            break
        after = hits[-1][2], hits[-1][0]
    return out[:limit]


def _is_unsettled(stored: StoredCall, provider_name: str) -> bool:
    return (
        stored.call.provider_name == provider_name
        and stored.call.response_id is not None
        and stored.cost_basis is not CostBasis.SETTLED
        and (stored.effective_cost is None or stored.call.status is CallStatus.ABORTED)
    )


def day_window(day: date) -> Window:
    """A UTC day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Window(start, start + timedelta(days=1))
