"""One user's or project's calls are gone for good: from the calls, the sums and the disk; everyone else's stay."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from spendwatch.calls import PricedCall, Tags, Window
from spendwatch.clickhouse import deletion, hourly, queries, retention, rollup, rows
from spendwatch.clickhouse.client import Connection
from spendwatch.errors import StoreError
from tests.clickhouse.builders import RECEIVED, a_call, total

FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
WINDOW = Window(FIRST, FIRST + timedelta(days=4))
ALICE = "alice@example.org"


def sent_by(number: int, user: str, project: str = "acme") -> PricedCall:
    return a_call(
        number,
        cost=f"0.0{number:03}",
        started_at=FIRST + timedelta(minutes=37 * number),
        tags=Tags(project=project, user=user, session=f"s-{user}", team="search"),
    )


@pytest.fixture
def calls(clickhouse: Connection, monkeypatch: pytest.MonkeyPatch) -> list[PricedCall]:
    """Calls of two users in two projects over two days, rolled up."""
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    sent = [
        sent_by(number, ALICE if number % 3 == 0 else "bob", "acme" if number % 2 else "beta")
        for number in range(1, 61)
    ]
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    rollup.roll(clickhouse)
    return sent


def nothing_but(ch: Connection, left: list[PricedCall]) -> None:
    """Calls, hours and days hold these calls and no others."""
    spend = queries.spend(ch, {}, WINDOW)
    assert (spend.calls, spend.cost) == (len(left), total(left))
    for sql in (
        "SELECT count(), sum(effective_cost) FROM llm_calls FINAL",
        "SELECT sum(calls), sum(effective_cost) FROM llm_calls_hourly_newest",
    ):
        assert ch.query("left", sql) == [(len(left), total(left))]


def on_disk(ch: Connection, column: str, value: str) -> int:
    """Rows with a value in any part of the calls that is still there, replaced versions and all."""
    old = ch.query("old", "SELECT count() FROM system.parts WHERE table = 'llm_calls' AND NOT active")
    assert old == [(0,)]
    ((rows_left,),) = ch.query("raw", f"SELECT count() FROM llm_calls WHERE {column} = {{v:String}}", {"v": value})
    return int(rows_left)


def test_what_is_held_is_told_without_changing_anything(clickhouse: Connection, calls: list[PricedCall]) -> None:
    held = deletion.held(clickhouse, "user", ALICE)
    assert (held.calls, held.sessions) == (20, (f"s-{ALICE}",))
    assert held.first == calls[2].call.started_at
    nothing_but(clickhouse, calls)
    assert deletion.held(clickhouse, "project", "nobody").calls == 0
    with pytest.raises(ValueError, match="empty"):
        deletion.held(clickhouse, "user", "")


def test_a_users_calls_are_gone_and_the_others_stay(clickhouse: Connection, calls: list[PricedCall]) -> None:
    gone = deletion.delete(clickhouse, "user", ALICE, disk_s=170)
    assert (gone.calls, gone.left_on_disk) == (20, 0)
    assert gone.hours > 0
    nothing_but(clickhouse, [call for call in calls if call.call.tags.user != ALICE])
    assert on_disk(clickhouse, "user_id", ALICE) == 0
    assert on_disk(clickhouse, "session_id", f"s-{ALICE}") == 0
    # The days were summed again too.
    clickhouse.command("empty", "TRUNCATE TABLE llm_calls")
    clickhouse.command("empty", "TRUNCATE TABLE llm_calls_hourly")
    full = Window(FIRST, FIRST + timedelta(days=1))
    inside = [c for c in calls if c.call.tags.user != ALICE and full.start <= c.call.started_at < full.end]
    assert queries.spend(clickhouse, {}, full).cost == total(inside)


def test_a_projects_calls_and_sums_are_gone(clickhouse: Connection, calls: list[PricedCall]) -> None:
    deletion.delete(clickhouse, "project", "beta", disk_s=0)
    nothing_but(clickhouse, [call for call in calls if call.call.tags.project != "beta"])
    for table in ("llm_calls", "llm_calls_hourly", "llm_calls_daily"):
        named = clickhouse.query("named", f"SELECT count() FROM {table} WHERE project = 'beta'")
        assert named == [(0,)], table


def test_a_version_from_before_the_user_was_known_does_not_come_back(clickhouse: Connection) -> None:
    plain = replace(sent_by(1, ALICE).call, tags=Tags(project="acme"))
    rows.insert(clickhouse, [replace(sent_by(1, ALICE), call=plain)], received_at=RECEIVED)
    rows.insert(clickhouse, [sent_by(1, ALICE)], received_at=RECEIVED)
    assert deletion.delete(clickhouse, "user", ALICE, disk_s=0).calls == 1
    assert clickhouse.query("left", "SELECT count() FROM llm_calls") == [(0,)]


def test_the_id_is_not_kept_in_what_the_engine_remembers(clickhouse: Connection, calls: list[PricedCall]) -> None:
    deletion.delete(clickhouse, "user", ALICE, disk_s=0)
    commands = clickhouse.query("log", "SELECT command FROM system.mutations WHERE table = 'llm_calls'")
    assert commands
    assert not any(ALICE in command for (command,) in commands)


def test_sums_of_hours_whose_calls_expired_stay_but_for_the_project(
    clickhouse: Connection, calls: list[PricedCall]
) -> None:
    retention.keep(clickhouse, 1)
    try:
        clickhouse.command("expire", "OPTIMIZE TABLE llm_calls FINAL")
        expired = [call for call in calls if call.call.started_at < FIRST + timedelta(days=1)]
        deletion.delete(clickhouse, "user", ALICE, disk_s=0)
        day = Window(FIRST, FIRST + timedelta(days=1))
        assert queries.spend(clickhouse, {}, day).cost == total(expired)
        deletion.delete(clickhouse, "project", "beta", disk_s=0)
        of_acme = [call for call in expired if call.call.tags.project == "acme"]
        assert queries.spend(clickhouse, {}, day).cost == total(of_acme)
    finally:
        retention.keep(clickhouse, None)


def test_one_that_died_before_the_sums_were_made_again_is_finished_by_the_next(
    clickhouse: Connection, calls: list[PricedCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Connection) -> int:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(rollup, "mend", die)
        with pytest.raises(StoreError, match="away"):
            deletion.delete(clickhouse, "user", ALICE, disk_s=0)
    assert deletion.delete(clickhouse, "user", ALICE, disk_s=0).hours > 0
    nothing_but(clickhouse, [call for call in calls if call.call.tags.user != ALICE])


def test_the_next_rolls_change_nothing(clickhouse: Connection, calls: list[PricedCall]) -> None:
    deletion.delete(clickhouse, "user", ALICE, disk_s=0)
    late = sent_by(70, "bob")
    rows.insert(clickhouse, [late], received_at=RECEIVED)
    rollup.roll(clickhouse)
    nothing_but(clickhouse, [*(call for call in calls if call.call.tags.user != ALICE), late])
    assert rollup.mend(clickhouse) == 0


def test_money_is_taken_out_to_the_last_digit(clickhouse: Connection, calls: list[PricedCall]) -> None:
    before = queries.spend(clickhouse, {}, WINDOW).cost
    theirs = queries.spend(clickhouse, {"user_id": [ALICE]}, WINDOW).cost
    deletion.delete(clickhouse, "user", ALICE, disk_s=0)
    assert theirs > Decimal(0)
    assert queries.spend(clickhouse, {}, WINDOW).cost == before - theirs
