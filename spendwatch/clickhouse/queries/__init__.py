"""The questions that spendwatch asks of ClickHouse: one named function each, typed answers, parameters only.

Every function takes the Connection first and raises StoreError when ClickHouse can't answer. Windows are half-open and
go by a call's start. Never here: decisions about the answers.
"""

from spendwatch.clickhouse.queries.calls import call, calls_received, cell_calls, distinct, unsettled
from spendwatch.clickhouse.queries.cells import usage_cells
from spendwatch.clickhouse.queries.freshness import last_received
from spendwatch.clickhouse.queries.pages import calls_page
from spendwatch.clickhouse.queries.spend import spend, spend_by, spend_series
from spendwatch.clickhouse.queries.streams import Uncounted, uncounted_streams
from spendwatch.clickhouse.queries.types import CallsPage, SeriesPoint, Spend, SpendRow, Step, UsageCell
from spendwatch.clickhouse.stored import StoredCall

__all__ = [
    "CallsPage",
    "SeriesPoint",
    "Spend",
    "SpendRow",
    "Step",
    "StoredCall",
    "Uncounted",
    "UsageCell",
    "call",
    "calls_page",
    "calls_received",
    "cell_calls",
    "distinct",
    "last_received",
    "spend",
    "spend_by",
    "spend_series",
    "uncounted_streams",
    "unsettled",
    "usage_cells",
]
