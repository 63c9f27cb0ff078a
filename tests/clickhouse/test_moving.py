"""A copy into another ClickHouse holds the same calls and sums, goes on where it died, and says when it does not.

There is no ClickHouse server here: the other side is a second embedded store, reached over HTTP as a server would be.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from spendwatch.calls import PricedCall, Tags, Window
from spendwatch.clickhouse import deletion, hourly, moving, queries, retention, rollup, rows
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.errors import StoreError
from tests.clickhouse.builders import RECEIVED, a_call, settled, total
from tests.fixtures.store import RunningStore, start_store

FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5)
WINDOW = Window(FIRST, FIRST + timedelta(days=7))


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    store = start_store(Path(tmp_path_factory.mktemp("other")))
    with store.process:
        yield store
        store.stop()


@pytest.fixture
def other(other_store: RunningStore) -> Iterator[Connection]:
    """The other side, without tables."""
    with connect(other_store.dsn, caller="tests") as ch:
        yield ch
        for (name,) in ch.query("tables", "SHOW TABLES"):
            ch.command("drop", f"DROP TABLE {name} SYNC")


@pytest.fixture
def calls(clickhouse: Connection, monkeypatch: pytest.MonkeyPatch) -> list[PricedCall]:
    """Calls of five days, some edited, one removed, rolled up."""
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    sent = [
        a_call(n, started_at=FIRST + timedelta(minutes=97 * n), tags=Tags(project="acme", team=f"t{n % 3}"))
        for n in range(60)
    ]
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    rows.insert(clickhouse, [settled(sent[4])], received_at=RECEIVED)
    (gone,) = rows.find(clickhouse, [rows.call_id(sent[9].call)])
    rows.write(clickhouse, [rows.removal(gone)])
    rollup.roll(clickhouse)
    return [settled(call) if call is sent[4] else call for call in sent if call is not sent[9]]


def equal(source: Connection, target: Connection) -> None:
    for by in (["team", "request_model"], ["cost_basis"], ["project", "key_hash"]):
        assert queries.spend_by(target, by, {}, WINDOW) == queries.spend_by(source, by, {}, WINDOW)
    assert moving.totals(target) == moving.totals(source)


def test_the_copy_holds_the_same_calls_and_sums(
    clickhouse: Connection, other: Connection, calls: list[PricedCall]
) -> None:
    days: list[moving.Day] = []
    found = moving.copy(clickhouse, other, tell=days.append)
    assert (found.calls, float(found.cost)) == (59, float(total(calls)))
    assert [day.day for day in days] == sorted({call.call.started_at.date() for call in calls})
    equal(clickhouse, other)
    one = calls[7].call
    assert queries.call(other, rows.call_id(one)) == queries.call(clickhouse, rows.call_id(one))
    other.command("empty", "TRUNCATE TABLE llm_calls")
    assert queries.spend(other, {}, WINDOW).cost == total(calls)


def test_what_is_there_already_is_not_sent_again_and_news_are(
    clickhouse: Connection, other: Connection, calls: list[PricedCall]
) -> None:
    moving.copy(clickhouse, other)
    again: list[moving.Day] = []
    moving.copy(clickhouse, other, tell=again.append)
    assert [day.sent for day in again] == [0] * len(again)
    late = a_call(99, started_at=FIRST + timedelta(hours=30, minutes=1))
    moved = replace(calls[20], call=replace(calls[20].call, tags=Tags(project="acme", team="moved")), revision=1)
    rows.insert(clickhouse, [late, moved, settled(calls[21])], received_at=RECEIVED)
    (gone,) = rows.find(clickhouse, [rows.call_id(calls[30].call)])
    rows.write(clickhouse, [rows.removal(gone)])
    rollup.roll(clickhouse)
    news: list[moving.Day] = []
    moving.copy(clickhouse, other, tell=news.append)
    assert 0 < sum(day.sent for day in news) < 20
    equal(clickhouse, other)


def test_a_copy_that_died_goes_on(
    clickhouse: Connection, other: Connection, calls: list[PricedCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = moving._copy_hour, []

    def dies(source: Connection, target: Connection, hour: datetime) -> int:
        if len(done) == 20:
            raise StoreError("away")
        done.append(hour)
        return real(source, target, hour)

    with monkeypatch.context() as patched:
        patched.setattr(moving, "_copy_hour", dies)
        with pytest.raises(StoreError, match="away"):
            moving.copy(clickhouse, other)
    days: list[moving.Day] = []
    moving.copy(clickhouse, other, tell=days.append)
    assert days[0].sent == 0
    equal(clickhouse, other)


def test_a_day_that_comes_out_different_is_an_error(
    clickhouse: Connection, other: Connection, calls: list[PricedCall]
) -> None:
    moving.copy(clickhouse, other)
    rows.insert(other, [a_call(500, started_at=FIRST + timedelta(hours=3))], received_at=RECEIVED)
    with pytest.raises(StoreError, match=r"expected Totals\(calls=\d+.*found Totals"):
        moving.copy(clickhouse, other)


def test_sums_of_expired_hours_come_along(clickhouse: Connection, other: Connection, calls: list[PricedCall]) -> None:
    before = queries.spend(clickhouse, {}, WINDOW)
    retention.keep(clickhouse, 2)
    try:
        clickhouse.command("expire", "OPTIMIZE TABLE llm_calls FINAL")
        assert moving.copy(clickhouse, other).calls < 59
        assert retention.kept_days(other) == 2
        assert queries.spend(other, {}, WINDOW) == queries.spend(clickhouse, {}, WINDOW) == before
        moving.copy(clickhouse, other)
        assert queries.spend(other, {}, WINDOW) == before
    finally:
        retention.keep(clickhouse, None)


def test_the_command_moves_a_store_and_says_so(
    clickhouse: Connection, other: Connection, other_store: RunningStore, calls: list[PricedCall],
    migrated_store_dsn: str, settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    monkeypatch.setenv("SPENDWATCH_CLICKHOUSE_NEW", other_store.dsn)
    call_command("store", "copy")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("both hold 59 calls, USD ")
    assert other_store.password not in last
    equal(clickhouse, other)


def test_a_project_deleted_on_both_sides_is_equal_again(
    clickhouse: Connection, other: Connection, calls: list[PricedCall]
) -> None:
    moving.copy(clickhouse, other)
    for side in (clickhouse, other):
        deletion.delete(side, "project", "acme", disk_s=0)
    assert moving.copy(clickhouse, other).calls == 0
