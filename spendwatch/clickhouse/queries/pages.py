"""A page of the list of calls, newest first.

Where the sums of hours and days know how many calls there are, they also tell in which hours those of the page started,
and only these are read. A search, or a question about users or sessions, reads the narrow columns of the whole window.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from spendwatch.calls import Scope, Window
from spendwatch.clickhouse import hourly
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.lookup import whole
from spendwatch.clickhouse.queries.filters import HOUR, in_scope, in_sort_key, started_within
from spendwatch.clickhouse.queries.spend import spend_series
from spendwatch.clickhouse.queries.types import CallsPage, SeriesPoint, Step
from spendwatch.clickhouse.stored import StoredCall

_SEARCHED_EXACTLY = ("response_id", "session_id", "user_id", "key_hash")
_SEARCHED_AS_BYTES = {32: ("trace_id",), 16: ("span_id", "parent_span_id")}
_SEARCHED_WITHIN = ("request_model", "response_model", "agent", "team", "feature", "service_name", "error_type")
_SHORT = timedelta(hours=2)
"""A window in which it takes longer to look for the page's hours than to read them all."""


def calls_page(
    ch: Connection, scope: Scope, window: Window, *, page: int, page_size: int, search: str | None = None
) -> CallsPage:
    """One page (the first is 1) of the calls of a scope and window, newest first.

    search: text that is an id of the call (reply, trace, span, session, user, key, call), or part of its model, agent,
    team, feature, service or error. Raises StoreError, ValueError.
    """
    if page < 1 or page_size < 1:
        raise ValueError(f"expected a page and a page size from 1, found page {page} of size {page_size}")
    filters, parameters = in_scope(scope)
    keyed = in_sort_key(scope)
    offset, total = (page - 1) * page_size, None
    if search:
        filters += f" AND ({_sought(search)})"
        parameters["search"] = search
    elif set(scope) <= set(hourly.DIMENSIONS) and window.end - window.start > _SHORT:
        days = spend_series(ch, scope, window, step=Step.DAY)
        total = sum(point.calls for point in days)
        for step, length in ((Step.DAY, timedelta(days=1)), (Step.HOUR, HOUR)):
            points = days if step is Step.DAY else spend_series(ch, scope, window, step=step)
            reached = _reach(points, length, window, offset, page_size)
            if reached is None:
                return CallsPage([], total)
            window, offset = reached
    found = _keys(ch, window, keyed, filters, parameters, page_size, offset)
    if total is None:
        total = len(found) if not offset and len(found) < page_size else _count(ch, window, keyed, filters, parameters)
    return CallsPage(_newest_first(whole(ch, found)), total)


def _reach(
    points: Sequence[SeriesPoint], length: timedelta, window: Window, offset: int, limit: int
) -> tuple[Window, int] | None:
    """The part of a window that holds `limit` calls after the newest `offset`, and how many of these lie in it too."""
    seen, newer = 0, 0
    start = end = None
    for point in reversed(points):
        if end is None and seen + point.calls <= offset:
            seen += point.calls
            continue
        if end is None:
            end, newer = point.start + length, seen
        start = point.start
        seen += point.calls
        if seen >= offset + limit:
            break
    if start is None or end is None:
        return None
    return Window(max(start, window.start), min(end, window.end)), offset - newer


def _keys(
    ch: Connection, window: Window, keyed: str, filters: str, parameters: dict[str, Any], limit: int, offset: int
) -> list[tuple[int, int]]:
    within, times = started_within(window)
    rows = ch.query(
        "calls_page",
        "SELECT call_id, toUnixTimestamp(toStartOfHour(started_at)) FROM llm_calls FINAL "
        f"PREWHERE {within} AND {keyed} WHERE {filters} "
        "ORDER BY started_at DESC, call_id LIMIT {limit:UInt32} OFFSET {offset:UInt64}",
        {**parameters, **times, "limit": limit, "offset": offset},
    )
    return [(call, hour) for call, hour in rows]


def _count(ch: Connection, window: Window, keyed: str, filters: str, parameters: dict[str, Any]) -> int:
    within, times = started_within(window)
    ((count,),) = ch.query(
        "calls_total",
        f"SELECT count() FROM llm_calls FINAL PREWHERE {within} AND {keyed} WHERE {filters}",
        {**parameters, **times},
    )
    return int(count)


def _newest_first(found: Sequence[StoredCall]) -> list[StoredCall]:
    by_id = sorted(found, key=lambda stored: stored.call_id)
    return sorted(by_id, key=lambda stored: stored.call.started_at, reverse=True)


def _sought(search: str) -> str:
    exact = [f"{name} = {{search:String}}" for name in _SEARCHED_EXACTLY]
    if re.fullmatch("[0-9a-fA-F]+", search):
        exact += [f"{name} = unhex({{search:String}})" for name in _SEARCHED_AS_BYTES.get(len(search), ())]
    part = [f"positionCaseInsensitiveUTF8({name}, {{search:String}}) > 0" for name in _SEARCHED_WITHIN]
    if search.isdecimal() and int(search) < 2**64:
        exact.append("call_id = toUInt64({search:String})")
    return " OR ".join([*exact, *part])
