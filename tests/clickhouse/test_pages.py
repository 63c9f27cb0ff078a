"""A page of calls holds the right ones, wherever in the list it lies, and reads only the hours that they are in."""

from datetime import UTC, datetime, timedelta

import pytest

from spendwatch.calls import PricedCall, Tags, Window
from spendwatch.clickhouse import hourly, queries, rollup, rows
from spendwatch.clickhouse.client import Connection
from tests.clickhouse.builders import RECEIVED, a_call

FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
WINDOW = Window(FIRST, FIRST + timedelta(days=4))


@pytest.fixture
def four_days(clickhouse: Connection, monkeypatch: pytest.MonkeyPatch) -> list[PricedCall]:
    """90 calls of four days, of two teams; the newest of them came after the roller last looked."""
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    sent = [
        a_call(number, started_at=FIRST + timedelta(minutes=61 * number), tags=Tags(team=f"t{number % 2}", session="s"))
        for number in range(90)
    ]
    rows.insert(clickhouse, sent[:80], received_at=RECEIVED)
    rollup.roll(clickhouse)
    rows.insert(clickhouse, sent[80:], received_at=RECEIVED)
    return sent


@pytest.mark.parametrize("size", [13, 24, 100])
@pytest.mark.parametrize("scope", [{}, {"team": ["t1"]}, {"session_id": ["s"]}], ids=["all", "a team", "a session"])
def test_the_pages_together_are_the_list(
    clickhouse: Connection, four_days: list[PricedCall], scope: dict[str, list[str]], size: int
) -> None:
    wanted = [
        call.call.response_id for call in reversed(four_days) if not scope.get("team") or call.call.tags.team == "t1"
    ]
    found: list[str | None] = []
    for page in range(1, 100 // size + 2):
        answer = queries.calls_page(clickhouse, scope, WINDOW, page=page, page_size=size)
        assert answer.total == len(wanted)
        found += [stored.call.response_id for stored in answer.calls]
    assert found == wanted


def test_a_page_beyond_the_end_is_empty_and_knows_the_total(
    clickhouse: Connection, four_days: list[PricedCall]
) -> None:
    for search in (None, "crawler", "gen-7"):
        answer = queries.calls_page(clickhouse, {}, WINDOW, page=9, page_size=50, search=search)
        assert answer.calls == []
        assert answer.total == queries.calls_page(clickhouse, {}, WINDOW, page=1, page_size=50, search=search).total


def test_a_window_that_cuts_days_and_hours_holds_its_calls_only(
    clickhouse: Connection, four_days: list[PricedCall]
) -> None:
    window = Window(FIRST + timedelta(hours=5, minutes=20), FIRST + timedelta(hours=77, minutes=40))
    inside = [call for call in four_days if window.start <= call.call.started_at < window.end]
    answer = queries.calls_page(clickhouse, {}, window, page=1, page_size=100)
    assert [stored.call.response_id for stored in answer.calls] == [call.call.response_id for call in reversed(inside)]
    assert answer.total == len(inside)


def test_a_changed_call_is_listed_once_as_it_is_now(clickhouse: Connection, four_days: list[PricedCall]) -> None:
    moved = a_call(10, started_at=four_days[10].call.started_at, tags=Tags(team="t7", session="s"))
    rows.insert(clickhouse, [PricedCall(call=moved.call, effective_cost=moved.effective_cost,
                                        cost_basis=moved.cost_basis, revision=5)], received_at=RECEIVED)  # fmt: skip
    assert queries.calls_page(clickhouse, {}, WINDOW, page=1, page_size=100).total == 90
    assert queries.calls_page(clickhouse, {"team": ["t0"]}, WINDOW, page=1, page_size=100).total == 44
    (found,) = queries.calls_page(clickhouse, {"team": ["t7"]}, WINDOW, page=1, page_size=100).calls
    assert found.call.response_id == "gen-10"
