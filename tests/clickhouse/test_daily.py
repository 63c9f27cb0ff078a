"""The sums of days agree with the calls to the last digit, and are read only while they do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from spendwatch.calls import PricedCall, Tags, Window
from spendwatch.clickhouse import daily, hourly, queries, rollup, rows
from spendwatch.clickhouse.client import Connection
from tests.clickhouse.builders import RECEIVED, a_call, settled, total

pytestmark = pytest.mark.usefixtures("settled_at_once")

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = TODAY - timedelta(days=5)
DAYS = Window(FIRST, FIRST + timedelta(days=4))
"""Four days that are over."""


@pytest.fixture
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No insert of these tests is still on its way when the roller looks, so no hour has to wait."""
    monkeypatch.setattr(hourly, "SETTLING_S", 0)


def spread(count: int = 60) -> list[PricedCall]:
    """Calls of four days, several teams and models."""
    return [
        a_call(
            number,
            cost=None if number % 7 == 0 else f"0.00{number:02}00000001",
            started_at=FIRST + timedelta(minutes=91 * number),
            request_model=f"model-{number % 3}",
            tags=Tags(team=f"team-{number % 4}", project="acme"),
        )
        for number in range(1, count + 1)
    ]


def stored(ch: Connection) -> list[PricedCall]:
    sent = spread()
    rows.insert(ch, sent, received_at=RECEIVED)
    rollup.roll(ch)
    return sent


def only_days_are_left(ch: Connection) -> None:
    for table in ("llm_calls", "llm_calls_hourly"):
        ch.command("empty", f"TRUNCATE TABLE {table}")


def test_days_that_are_over_are_answered_by_their_sums_alone(clickhouse: Connection) -> None:
    sent = spread()
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    by_team = queries.spend_by(clickhouse, ["team", "request_model"], {}, DAYS)
    by_day = queries.spend_series(clickhouse, {}, DAYS, step="day", by="team")
    assert rollup.roll(clickhouse).days == 4
    only_days_are_left(clickhouse)
    assert queries.spend(clickhouse, {}, DAYS).cost == total(sent)
    assert queries.spend_by(clickhouse, ["team", "request_model"], {}, DAYS) == by_team
    assert queries.spend_series(clickhouse, {}, DAYS, step="day", by="team") == by_day


def test_a_series_of_hours_reads_the_hours(clickhouse: Connection) -> None:
    stored(clickhouse)
    hours = queries.spend_series(clickhouse, {}, DAYS, step="hour")
    days = queries.spend_series(clickhouse, {}, DAYS, step="day")
    assert len(hours) > len(days) == 4
    assert sum(point.cost for point in hours) == sum(point.cost for point in days)


def test_a_window_is_days_and_hours_and_calls_together(clickhouse: Connection) -> None:
    sent = stored(clickhouse)
    for start, end in [(0, 96 * 60), (61, 95 * 60 + 7), (24 * 60, 72 * 60), (1, 5), (23 * 60, 25 * 60)]:
        window = Window(FIRST + timedelta(minutes=start), FIRST + timedelta(minutes=end))
        inside = [call for call in sent if window.start <= call.call.started_at < window.end]
        spend = queries.spend(clickhouse, {}, window)
        assert (spend.calls, spend.cost) == (len(inside), total(inside))


def test_the_day_that_goes_on_is_not_summed(clickhouse: Connection) -> None:
    rows.insert(clickhouse, [a_call(1, started_at=TODAY)], received_at=RECEIVED)
    assert rollup.roll(clickhouse).days == 0
    assert queries.spend(clickhouse, {}, Window(TODAY, TODAY + timedelta(days=1))).calls == 1


def test_rolling_again_without_news_sums_no_day(clickhouse: Connection) -> None:
    stored(clickhouse)
    assert rollup.roll(clickhouse).days == 0


def test_a_late_a_settled_and_a_deleted_call_count_at_once_and_after_the_next_roll(clickhouse: Connection) -> None:
    sent = stored(clickhouse)
    late = a_call(99, cost="0.5", started_at=FIRST + timedelta(hours=30))
    dearer = settled(sent[20], Decimal("0.25"))
    rows.insert(clickhouse, [late, dearer, sent[3]], received_at=RECEIVED)
    (gone,) = rows.find(clickhouse, [rows.call_id(sent[40].call)])
    rows.write(clickhouse, [rows.removal(gone)])
    truth = [call for call in sent if call not in (sent[20], sent[40])] + [late, dearer]
    for _ in range(2):
        spend = queries.spend(clickhouse, {}, DAYS)
        assert (spend.calls, spend.cost) == (len(truth), total(truth))
        rollup.roll(clickhouse)
    only_days_are_left(clickhouse)
    assert queries.spend(clickhouse, {}, DAYS).cost == total(truth)


def test_a_day_is_not_believed_once_one_of_its_hours_was_rebuilt(clickhouse: Connection) -> None:
    stored(clickhouse)
    assert len(daily.valid(clickhouse, DAYS, [])) == 4
    hour = FIRST + timedelta(hours=25)
    # Another roller puts an hour in force and dies before the day is summed.
    rollup._rebuild(clickhouse, [hour], 2**63, provisional=False)
    rollup._commit(clickhouse, {hour: False}, 2**63, 1)
    assert [day.day for day in daily.valid(clickhouse, DAYS, [])] == [
        (FIRST + timedelta(days=n)).day for n in (0, 2, 3)
    ]


def test_what_was_summed_but_not_committed_counts_for_nothing(clickhouse: Connection) -> None:
    sent = stored(clickhouse)
    day = FIRST.date()
    dimensions = ", ".join(hourly.DIMENSIONS)
    measures = ", ".join(hourly.MEASURES)
    clickhouse.command(
        "half",
        f"INSERT INTO llm_calls_daily (day, generation, {dimensions}, {measures}) SELECT day, {2**63}, {dimensions}, "
        f"{measures} FROM llm_calls_daily WHERE day = '{day.isoformat()}'",
    )
    assert queries.spend(clickhouse, {}, DAYS).cost == total(sent)


def test_moving_a_call_to_another_team_moves_its_money(clickhouse: Connection) -> None:
    sent = stored(clickhouse)
    moved = replace(sent[10].call, tags=replace(sent[10].call.tags, team="moved"))
    rows.insert(clickhouse, [replace(sent[10], call=moved, revision=1)], received_at=RECEIVED)
    rollup.roll(clickhouse)
    only_days_are_left(clickhouse)
    teams = {row.key[0]: row.spend for row in queries.spend_by(clickhouse, ["team"], {}, DAYS)}
    assert teams["moved"].cost == sent[10].effective_cost
    assert sum((spend.cost for spend in teams.values()), Decimal(0)) == total(sent)
