"""Loops as evidence of an incident."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from alerts.rules.loops import MAX_LOOPS, Sighting, cause, merge
from spendwatch.loops import Level, Rule, Verdict

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def seen(start: int = 0, calls: int = 5, cost: str = "0.35", session: str = "s1", **more: Any) -> Sighting:
    """A loop that began `start` seconds after NOW, a call every ten seconds."""
    first = NOW + timedelta(seconds=start)
    verdict = Verdict(
        rule=Rule.REPEATED_ACTION, level=Level.ALERT, stream=("session", "shop", "crawler", session), tool="search",
        period=1, repeats=calls - 1, calls=calls, unpriced=0, first_at=first,
        last_at=first + timedelta(seconds=10 * (calls - 1)), cost=Decimal(cost),
    )  # fmt: skip
    facts = {"agent": "crawler", "service": "shop", "session": session, "team": "search", "model": "m", **more}
    return Sighting(verdict=verdict, **facts)


def test_one_agent_has_one_cause_whatever_its_sessions() -> None:
    assert cause(seen(session="s1")) == cause(seen(session="s2"))
    assert cause(seen()) != cause(seen(agent="writer"))
    assert cause(seen()) != cause(seen(service="blog"))
    assert cause(seen(agent="", session="s1")) != cause(seen(agent="", session="s2"))


def test_merging_the_same_sighting_twice_changes_nothing() -> None:
    once = merge({}, seen())
    assert merge(once, seen()) == once
    assert (once["calls"], once["cost"], once["repeats"]) == (5, "0.35", 4)


def test_a_loop_that_goes_on_replaces_what_was_known_of_it() -> None:
    later = merge(merge({}, seen()), seen(calls=20, cost="1.4"))
    assert (later["calls"], later["cost"]) == (20, "1.4")
    assert later["usd_an_hour"] == "26.526315789474"


def test_a_shorter_look_at_the_same_loop_lowers_nothing() -> None:
    full = merge({}, seen(calls=20, cost="1.4"))
    again = merge(full, seen(start=100, calls=12, cost="0.84"))
    assert (again["calls"], again["cost"], again["first_at"]) == (20, "1.4", full["first_at"])
    assert again["last_at"] == (NOW + timedelta(seconds=210)).isoformat()


def test_loops_of_several_sessions_add_up() -> None:
    both = merge(merge({}, seen(session="s1")), seen(session="s2", cost="0.15"))
    assert (both["calls"], both["cost"], both["sessions"]) == (10, "0.5", 2)


def test_a_second_loop_of_the_same_session_adds_up() -> None:
    both = merge(merge({}, seen()), seen(start=600))
    assert (both["calls"], both["cost"], both["sessions"]) == (10, "0.7", 1)
    assert both["first_at"] == NOW.isoformat()


def test_old_loops_are_kept_as_a_sum() -> None:
    evidence: dict[str, Any] = {}
    for n in range(MAX_LOOPS + 30):
        evidence = merge(evidence, seen(start=1000 * n, session=f"s{n}"))
    assert len(evidence["loops"]) == MAX_LOOPS
    assert Decimal(evidence["cost"]) == Decimal("0.35") * (MAX_LOOPS + 30)
    assert evidence["first_at"] == NOW.isoformat()
