"""Single calls: a page of them, one of them, those that just arrived, those still to be settled."""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from spendwatch.calls import CostBasis, Scope, Window
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.columns import micros
from spendwatch.clickhouse.queries.filters import check_dimensions, in_scope, started_within
from spendwatch.clickhouse.queries.types import CallsPage
from spendwatch.clickhouse.rows import find, hours_parameter
from spendwatch.clickhouse.stored import SELECT, StoredCall, read

_SEARCHED_EXACTLY = ("response_id", "session_id", "user_id", "key_hash")
_SEARCHED_AS_BYTES = {32: ("trace_id",), 16: ("span_id", "parent_span_id")}
_SEARCHED_WITHIN = ("request_model", "response_model", "agent", "team", "feature", "service_name", "error_type")
MODEL = "if(response_model != '', response_model, request_model)"
"""The model of a call on a statement: the one the reply named, else the one asked for."""


def calls_page(
    ch: Connection, scope: Scope, window: Window, *, page: int, page_size: int, search: str | None = None
) -> CallsPage:
    """One page (the first is 1) of the calls of a scope and window, newest first.

    search: text that is an id of the call (reply, trace, span, session, user, key, call), or part of its model, agent,
    team, feature, service or error. Raises StoreError, ValueError.
    """
    if page < 1 or page_size < 1:
        raise ValueError(f"expected a page and a page size from 1, found page {page} of size {page_size}")
    within, parameters = started_within(window)
    filters, values = in_scope(scope)
    parameters |= values
    where = f"{within} AND {filters}"
    if search:
        exact = [f"{name} = {{search:String}}" for name in _SEARCHED_EXACTLY]
        if re.fullmatch("[0-9a-fA-F]+", search):
            exact += [f"{name} = unhex({{search:String}})" for name in _SEARCHED_AS_BYTES.get(len(search), ())]
        part = [f"positionCaseInsensitiveUTF8({name}, {{search:String}}) > 0" for name in _SEARCHED_WITHIN]
        where += f" AND ({' OR '.join([*exact, *part, 'toString(call_id) = {search:String}'])})"
        parameters["search"] = search
    total = ch.query("calls_total", f"SELECT count() FROM llm_calls FINAL WHERE {where}", parameters)[0][0]
    rows = ch.query(
        "calls_page",
        f"SELECT {SELECT} FROM llm_calls FINAL WHERE {where} "
        "ORDER BY started_at DESC, call_id LIMIT {limit:UInt32} OFFSET {offset:UInt64}",
        {**parameters, "limit": page_size, "offset": (page - 1) * page_size},
    )
    return CallsPage([read(row) for row in rows], total)


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
    return _calls(
        ch,
        "cell_calls",
        f"{within} AND provider_name = {{provider:String}} AND {MODEL} = {{model:String}} "
        "AND serving_provider = {endpoint:String} AND key_hash = {key:String}",
        {**parameters, "provider": provider_name, "model": model, "endpoint": endpoint, "key": key_hash},
        order="effective_cost DESC, started_at, call_id",
        limit=limit,
    )


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
    return _calls(
        ch,
        "calls_received",
        f"toStartOfHour(started_at) IN {{hours:Array(DateTime('UTC'))}} AND {received}",
        {**times, "hours": hours_parameter(datetime.fromtimestamp(hour, UTC) for (hour,) in hours)},
        order="started_at, call_id",
        limit=limit,
    )


def unsettled(ch: Connection, provider_name: str, window: Window, *, limit: int) -> list[StoredCall]:
    """The provider's calls with a reply's id whose cost is unknown or that the app left early, oldest first.

    They can be asked for by id; once settled they are gone from here. Raises StoreError.
    """
    within, parameters = started_within(window)
    return _calls(
        ch,
        "unsettled",
        f"{within} AND provider_name = {{provider:String}} AND response_id != '' AND cost_basis != {{settled:String}} "
        "AND (isNull(effective_cost) OR status = 'aborted')",
        {**parameters, "provider": provider_name, "settled": CostBasis.SETTLED.value},
        order="started_at, call_id",
        limit=limit,
    )


def day_window(day: date) -> Window:
    """A UTC day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Window(start, start + timedelta(days=1))


def _calls(
    ch: Connection, name: str, where: str, parameters: dict[str, Any], *, order: str, limit: int
) -> list[StoredCall]:
    rows = ch.query(
        name,
        f"SELECT {SELECT} FROM llm_calls FINAL WHERE {where} ORDER BY {order} LIMIT {{limit:UInt32}}",
        {**parameters, "limit": limit},
    )
    return [read(row) for row in rows]
