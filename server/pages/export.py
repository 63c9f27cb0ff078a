"""The filtered calls as CSV, written as they are read: at most one page of calls is in memory, however many there are.

Amounts are exact decimal numbers in USD, unknown ones empty. Invariant: each call that stood when the export began is
written once, though calls arrive meanwhile: pages are cut by time, not by number.
"""

import csv
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

from server.formats import exact
from server.pages.filters import CallFilter
from spendwatch.calls import Window
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.queries import StoredCall

PAGE = 2000
MICROSECOND = timedelta(microseconds=1)

COLUMNS: dict[str, Callable[[StoredCall], Any]] = {
    "call_id": lambda c: c.call_id,
    "started_at": lambda c: c.call.started_at.isoformat(),
    "duration_us": lambda c: c.call.duration_us,
    "status": lambda c: c.call.status.value,
    "http_status": lambda c: c.call.http_status,
    "error_type": lambda c: c.call.error_type,
    "provider_name": lambda c: c.call.provider_name,
    "serving_provider": lambda c: c.call.serving_provider,
    "request_model": lambda c: c.call.request_model,
    "response_model": lambda c: c.call.response_model,
    "operation_name": lambda c: c.call.operation_name,
    "response_id": lambda c: c.call.response_id,
    "trace_id": lambda c: c.call.trace_id,
    "span_id": lambda c: c.call.span_id,
    "project": lambda c: c.project,
    "team": lambda c: c.call.tags.team,
    "agent": lambda c: c.call.tags.agent,
    "session_id": lambda c: c.call.tags.session,
    "user_id": lambda c: c.call.tags.user,
    "feature": lambda c: c.call.tags.feature,
    "environment": lambda c: c.call.tags.environment,
    "service_name": lambda c: c.call.service_name,
    "key_hash": lambda c: c.call.key_hash,
    "input_tokens": lambda c: c.call.usage.input_tokens,
    "cache_read_input_tokens": lambda c: c.call.usage.cache_read_input_tokens,
    "cache_write_input_tokens": lambda c: c.call.usage.cache_write_input_tokens,
    "output_tokens": lambda c: c.call.usage.output_tokens,
    "reasoning_output_tokens": lambda c: c.call.usage.reasoning_output_tokens,
    "list_cost": lambda c: c.list_cost,
    "routed_cost": lambda c: c.routed_cost,
    "effective_cost": lambda c: c.effective_cost,
    "upstream_cost": lambda c: c.call.upstream_cost,
    "cost_basis": lambda c: c.cost_basis.value,
    "price_version": lambda c: c.price_version,
    "is_byok": lambda c: c.call.is_byok,
    "source": lambda c: c.call.source,
    "revision": lambda c: c.revision,
}
"""Column -> its value for a call."""


class _Line:
    """A file for csv.writer that hands back what is written."""

    def write(self, text: str) -> str:
        return text


def csv_lines(ch: Connection, wanted: CallFilter) -> Iterator[str]:
    """The header, then a line for each call, newest first. Raises StoreError between lines."""
    writer = csv.writer(_Line())
    yield writer.writerow(COLUMNS)
    for call in every_call(ch, wanted):
        yield writer.writerow([_cell(value(call)) for value in COLUMNS.values()])


def every_call(ch: Connection, wanted: CallFilter, *, page_size: int = PAGE) -> Iterator[StoredCall]:
    """All calls of a filter, newest first, read page by page. Raises StoreError."""
    end, page, at_end = wanted.window.end, 1, set[int]()
    while wanted.window.start < end:
        window = Window(wanted.window.start, end)
        found = queries.calls_page(
            ch, wanted.scope, window, page=page, page_size=page_size, search=wanted.search or None
        ).calls
        yield from (call for call in found if call.call_id not in at_end)
        if len(found) < page_size:
            return
        last = found[-1].call.started_at
        # The next page begins with the microsecond this one ended in; what was written of it is left out.
        if last + MICROSECOND < end:
            end, page = last + MICROSECOND, 1
            at_end = {call.call_id for call in found if call.call.started_at == last}
        else:
            page += 1
            at_end |= {call.call_id for call in found}


def _cell(value: object) -> object:
    if isinstance(value, Decimal):
        return exact(value)
    # A spreadsheet runs a text that begins like this as a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
