"""What the hourly rollup holds and which of its hours may be believed: shared by the roller and its readers.

An hour is dirty while calls of it were stored after the last rebuild looked (or so shortly before it that they may not
have been visible). Everything else is in the rollup, exact. Never here: writing.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from spendwatch.calls import Window
from spendwatch.clickhouse import retention
from spendwatch.clickhouse.client import INSERT_TIMEOUT_S, Connection

DIMENSIONS: tuple[str, ...] = (
    "environment", "team", "project", "service_name", "agent", "feature", "key_hash", "provider_name",
    "serving_provider", "operation_name", "request_model", "response_model", "status", "cost_basis",
)  # fmt: skip
"""The dimensions that survive in the rollup. Users and sessions don't: they are nearly as many as calls."""

_NO_MONEY = "toDecimal64(0, 12)"
MEASURES: Mapping[str, str] = {
    "calls": "count()",
    "unpriced_calls": "countIf(isNull(effective_cost))",
    "byok_calls": "countIf(ifNull(is_byok, false))",
    "effective_cost": f"sum(ifNull(effective_cost, {_NO_MONEY}))",
    "list_cost": f"sum(ifNull(list_cost, {_NO_MONEY}))",
    "routed_cost": f"sum(ifNull(routed_cost, {_NO_MONEY}))",
    "upstream_cost": f"sum(ifNull(upstream_cost, {_NO_MONEY}))",
    "input_tokens": "sum(toUInt64(ifNull(input_tokens, 0)))",
    "output_tokens": "sum(toUInt64(ifNull(output_tokens, 0)))",
    "cache_read_input_tokens": "sum(toUInt64(ifNull(cache_read_input_tokens, 0)))",
    "cache_write_input_tokens": "sum(toUInt64(ifNull(cache_write_input_tokens, 0)))",
    "reasoning_output_tokens": "sum(toUInt64(ifNull(reasoning_output_tokens, 0)))",
    "duration_us": "sum(duration_us)",
}
"""Column of the rollup -> the sum over llm_calls that it holds."""

SETTLING_S = 60
"""How long after its stored_at a row may become visible: longer than any insert, and than the skew between servers."""
assert SETTLING_S >= 2 * INSERT_TIMEOUT_S  # noqa: S101  # two settings that only make sense together

NEWEST = "(hour, generation) GLOBAL IN (SELECT hour, max(generation) FROM llm_calls_generations {where} GROUP BY hour)"


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far the roller has looked: calls with stored_at before `safe` are in the rollup. None: it never ran."""

    through: datetime | None

    @property
    def safe_ms(self) -> int:
        """Milliseconds since 1970 before which every stored row has been rolled up."""
        return 0 if self.through is None else max(0, int(self.through.timestamp() * 1000) - SETTLING_S * 1000)


def watermark(ch: Connection) -> Watermark:
    """Read how far the roller has looked. Raises StoreError."""
    rows = ch.query(
        "watermark",
        "SELECT toUnixTimestamp64Milli(max(rolled_through)) FROM llm_calls_generations "
        "WHERE hour = toDateTime(0, 'UTC')",
    )
    through = rows[0][0] if rows else 0
    return Watermark(datetime.fromtimestamp(through / 1000, UTC) if through else None)


def dirty_hours(ch: Connection, mark: Watermark, window: Window | None = None) -> list[datetime]:
    """The hours (of the window) with calls that the rollup may lack. Raises StoreError."""
    within, parameters = "1", {"safe": mark.safe_ms}
    if window is not None:
        within = (
            "toStartOfHour(started_at) >= toDateTime({start:UInt32}, 'UTC') "
            "AND toStartOfHour(started_at) < toDateTime({end:UInt32}, 'UTC')"
        )
        parameters |= {"start": int(window.start.timestamp()), "end": int(window.end.timestamp())}
    rows = ch.query(
        "dirty_hours",
        "SELECT DISTINCT toUnixTimestamp(toStartOfHour(started_at)) AS hour FROM llm_calls "
        f"WHERE {within} AND stored_at >= fromUnixTimestamp64Milli({{safe:Int64}}, 'UTC') ORDER BY hour",
        parameters,
    )
    hours = [datetime.fromtimestamp(hour, UTC) for (hour,) in rows]
    frozen = retention.frozen(ch, hours)
    return [hour for hour in hours if hour not in frozen]
