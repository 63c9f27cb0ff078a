"""Calls expire after the days that were asked for; their sums stay as they were."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from pytest_django import Settings

from spendwatch.calls import Window
from spendwatch.clickhouse import hourly, queries, retention, rollup, rows
from spendwatch.clickhouse.client import Connection
from tests.clickhouse.builders import a_call, total

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
OLD = NOW - timedelta(days=40)
ALWAYS = Window(NOW - timedelta(days=100), NOW + timedelta(days=1))


@pytest.fixture
def ch(clickhouse: Connection) -> Iterator[Connection]:
    """A connection whose calls are kept for ever again afterwards."""
    yield clickhouse
    retention.keep(clickhouse, None)


def stored(ch: Connection) -> int:
    ((count,),) = ch.query("count", "SELECT count() FROM llm_calls FINAL")
    return int(count)


def test_calls_expire_and_their_sums_stay(ch: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    calls = [a_call(n, started_at=OLD + timedelta(seconds=n)) for n in range(1, 6)]
    calls += [a_call(n, started_at=NOW + timedelta(seconds=n)) for n in range(11, 14)]
    rows.insert(ch, calls, received_at=NOW)
    rollup.roll(ch)
    assert retention.keep(ch, 30)
    assert not retention.keep(ch, 30)
    assert retention.kept_days(ch) == 30
    ch.command("merge", "OPTIMIZE TABLE llm_calls FINAL")
    assert stored(ch) == 3
    spend = queries.spend(ch, {}, ALWAYS)
    assert (spend.calls, spend.cost) == (8, total(calls))
    # A straggler of an hour whose other calls are gone must not make the sums forget those.
    rows.insert(ch, [a_call(99, started_at=OLD + timedelta(minutes=1))], received_at=NOW)
    assert queries.spend(ch, {}, ALWAYS).cost == total(calls)
    rollup.roll(ch)
    assert queries.spend(ch, {}, ALWAYS).cost == total(calls)


def test_a_call_that_comes_after_it_has_expired_is_not_stored(ch: Connection) -> None:
    retention.keep(ch, 30)
    rows.insert(ch, [a_call(1, started_at=OLD), a_call(2, started_at=NOW)], received_at=NOW)
    rollup.roll(ch)
    assert queries.spend(ch, {}, ALWAYS).calls == stored(ch) == 1


def test_the_setting_is_applied_by_the_command_once(
    ch: Connection, store_dsn: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = store_dsn
    for days in (90, 90, None):
        settings.SPENDWATCH_RETENTION_DAYS = days
        call_command("migrate_clickhouse")
        assert retention.kept_days(ch) == days
    assert capsys.readouterr().out.splitlines() == [
        "calls are kept for 90 days",
        "ClickHouse is up to date.",
        "calls are kept for ever",
    ]
