"""Our side of a reconciliation: what was recorded, in the cells of a provider's usage statement."""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

from datetime import UTC, datetime

from spendwatch.calls import Window
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.hourly import MEASURES
from spendwatch.clickhouse.queries.calls import MODEL
from spendwatch.clickhouse.queries.filters import started_within
from spendwatch.clickhouse.queries.types import UsageCell

_SUMS: dict[str, str] = {
    "calls": MEASURES["calls"],
    "cost": MEASURES["effective_cost"],
    "upstream_cost": MEASURES["upstream_cost"],
    "input_tokens": MEASURES["input_tokens"],
    "output_tokens": MEASURES["output_tokens"],
    "reasoning_output_tokens": MEASURES["reasoning_output_tokens"],
    "cache_read_input_tokens": MEASURES["cache_read_input_tokens"],
    "cache_write_input_tokens": MEASURES["cache_write_input_tokens"],
    "byok_calls": MEASURES["byok_calls"],
    "unpriced_calls": MEASURES["unpriced_calls"],
    "aborted_calls": "countIf(status = 'aborted')",
    "error_calls": "countIf(status = 'error')",
    "byok_cost": "sum(if(ifNull(is_byok, false), ifNull(upstream_cost, toDecimal64(0, 12)), toDecimal64(0, 12)))",
    "failed_calls": "countIf(status = 'error' AND isNull(effective_cost) AND response_id = '')",
}


def usage_cells(ch: Connection, window: Window, *, provider_name: str = "openrouter") -> list[UsageCell]:
    """The calls of a provider that started in a window, summed by UTC day, model, serving provider and key.

    Read from the calls themselves, not from the rollup: a proof should not lean on a copy. Raises StoreError.
    """
    within, parameters = started_within(window)
    sums = ", ".join(f"{sql} AS sum_{name}" for name, sql in _SUMS.items())
    rows = ch.query(
        "usage_cells",
        f"SELECT toUnixTimestamp(toStartOfDay(started_at, 'UTC')) AS day, {MODEL} AS model, "
        f"serving_provider, key_hash, {sums} FROM llm_calls FINAL "
        f"PREWHERE {within} WHERE provider_name = {{provider:String}} "
        "GROUP BY day, model, serving_provider, key_hash ORDER BY day, model, serving_provider, key_hash",
        {**parameters, "provider": provider_name},
    )
    return [
        UsageCell(
            day=datetime.fromtimestamp(day, UTC).date(),
            model=model,
            endpoint=endpoint,
            key_hash=key_hash,
            **dict(zip(_SUMS, sums, strict=True)),
        )
        for day, model, endpoint, key_hash, *sums in rows
    ]
