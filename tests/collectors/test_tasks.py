"""The roller as a task."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from collectors.tasks import roll
from spendwatch.calls import CostBasis, PricedCall, Window
from spendwatch.clickhouse import queries, rows
from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp.test_call import WHOLE

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
DAY = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))


def test_rolling_brings_the_hours_up_to_date_and_doing_it_again_changes_nothing(
    clickhouse: Connection, migrated_store_dsn: str, settings: Any
) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    calls = [
        PricedCall(
            call=replace(WHOLE, started_at=NOW, response_id=f"gen-1-{n}"),
            effective_cost=Decimal("0.25"),
            cost_basis=CostBasis.REPORTED,
        )
        for n in range(4)
    ]
    rows.insert(clickhouse, calls, received_at=NOW)
    for _ in range(2):
        roll()
        found = queries.spend(clickhouse, {}, DAY)
        assert (found.calls, found.cost) == (4, Decimal(1))
        assert clickhouse.query("hours", "SELECT uniqExact(hour) FROM llm_calls_hourly") == [(1,)]


def test_a_store_that_is_away_is_no_failure_of_the_task(settings: Any, caplog: Any) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = "http://spendwatch:x@127.0.0.1:1/spendwatch"
    roll()
    assert "could not be brought up to date" in caplog.text
    assert ":x@" not in caplog.text
