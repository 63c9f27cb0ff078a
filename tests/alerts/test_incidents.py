"""The life of an incident."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User

from alerts import incidents
from alerts.models import Budget, Channel, Crossing, Delivery, Incident, IncidentEvent, IncidentState
from alerts.rules.budget import judge
from tests.alerts.conftest import NOW, Clock
from tests.alerts.test_loop_evidence import seen

pytestmark = pytest.mark.django_db

MORE = {"scope": "all calls", "period": "this month", "unpriced_calls": 0}


@pytest.fixture
def budget(bot: Channel) -> Budget:
    return Budget.objects.create(name="search", amount=Decimal(500), channel=bot)


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada")


def spend(budget: Budget, usd: str, clock: Clock) -> None:
    """What the task does with a spend."""
    breach = judge(budget.terms, Decimal(usd), clock())
    if breach is not None:
        incidents.breached(budget, breach, MORE, clock())
    elif budget.period == "rolling":
        from alerts.rules.budget import calmed

        if calmed(budget.terms, Decimal(usd)):
            incidents.calmed(budget, Decimal(usd), clock())


def said() -> list[str]:
    return list(Delivery.objects.order_by("id").values_list("what", flat=True))


def history() -> list[str]:
    return list(IncidentEvent.objects.order_by("id").values_list("what", flat=True))


def test_each_threshold_is_told_once_in_one_incident(budget: Budget, clock: Clock) -> None:
    for usd in ("100", "250", "260", "400", "410", "390", "420", "240", "500", "900"):
        spend(budget, usd, clock)
        clock.move(minutes=1)
    assert said() == ["threshold:50@500", "threshold:80@500", "threshold:100@500"]
    assert Incident.objects.count() == 1
    assert [d.is_root for d in Delivery.objects.order_by("id")] == [True, False, False]
    assert history() == ["opened", "threshold", "threshold"]


def test_a_jump_tells_the_tightest_threshold_and_marks_the_others_as_covered(budget: Budget, clock: Clock) -> None:
    spend(budget, "200", clock)
    spend(budget, "600", clock)
    assert said() == ["threshold:100@500"]
    assert list(Crossing.objects.values_list("threshold", "covered_by")) == [(50, 100), (80, 100), (100, None)]


def test_a_threshold_added_below_one_already_told_is_no_news(budget: Budget, clock: Clock) -> None:
    spend(budget, "420", clock)
    budget.thresholds = [60, 80, 100]
    spend(budget, "425", clock)
    assert said() == ["threshold:80@500"]
    assert Crossing.objects.get(threshold=60).covered_by == 80


def test_a_raised_amount_makes_the_same_percentage_news_again(budget: Budget, clock: Clock) -> None:
    spend(budget, "420", clock)
    budget.amount = Decimal(1000)
    spend(budget, "450", clock)
    spend(budget, "850", clock)
    assert said() == ["threshold:80@500", "threshold:80@1000"]


def test_another_channel_is_not_told_again(budget: Budget, clock: Clock, webhook: Channel) -> None:
    spend(budget, "420", clock)
    budget.channel = webhook
    spend(budget, "430", clock)
    assert said() == ["threshold:80@500"]


def test_a_new_month_is_a_new_incident_and_ends_the_old_one(budget: Budget, clock: Clock) -> None:
    spend(budget, "420", clock)
    clock.move(days=20)
    incidents.expired(clock())
    spend(budget, "300", clock)
    old, new = Incident.objects.order_by("id")
    assert (old.state, new.state) == (IncidentState.RESOLVED, IncidentState.OPEN)
    assert said() == ["threshold:80@500", "threshold:50@500"]


def test_a_budget_without_a_channel_has_incidents_all_the_same(budget: Budget, clock: Clock) -> None:
    budget.channel = None
    spend(budget, "420", clock)
    assert Incident.objects.get().title == "Budget search passed 80 %"
    assert said() == []


def test_a_rolling_budget_tells_again_only_after_it_had_calmed(budget: Budget, clock: Clock) -> None:
    budget.period, budget.hours = "rolling", 6
    for usd in ("260", "240", "260", "100", "260"):
        spend(budget, usd, clock)
        clock.move(minutes=10)
    assert list(Incident.objects.order_by("id").values_list("episode", "state")) == [(1, "resolved"), (2, "open")]
    assert said() == ["threshold:50@500", "threshold:50@500"]


def test_a_rolling_window_that_moves_on_changes_no_message(budget: Budget, clock: Clock) -> None:
    budget.period, budget.hours = "rolling", 6
    versions = []
    for _ in range(3):
        spend(budget, "260", clock)
        clock.move(minutes=10)
        versions.append(Incident.objects.get().version)
    assert len(set(versions)) == 1


def test_a_rolling_breach_that_a_person_resolved_stays_resolved_until_it_grows(
    budget: Budget, clock: Clock, ada: User
) -> None:
    budget.period, budget.hours = "rolling", 6
    spend(budget, "260", clock)
    incidents.resolve(Incident.objects.get(), ada, clock())
    spend(budget, "270", clock)
    assert Incident.objects.get().state == IncidentState.RESOLVED
    spend(budget, "400", clock)
    assert Incident.objects.get().state == IncidentState.OPEN
    assert history() == ["opened", "resolved", "threshold", "reopened"]
    assert said() == ["threshold:50@500", "threshold:80@500"]


def test_money_in_evidence_is_exact_text(budget: Budget, clock: Clock) -> None:
    spend(budget, "412.100000000001", clock)
    assert Incident.objects.get().evidence["spent"] == "412.100000000001"
    assert Crossing.objects.get(threshold=80).spent == Decimal("412.100000000001")


def test_a_loop_is_one_incident_however_often_it_is_seen(bot: Channel, webhook: Channel, clock: Clock) -> None:
    for calls in range(5, 30):
        incidents.looping(seen(calls=calls, cost=str(calls)), clock())
    incidents.looping(seen(session="s2", start=30), clock())
    incident = Incident.objects.get()
    assert said() == ["opened:1", "opened:1"]
    assert incident.evidence["sessions"] == 2
    assert incident.title == "Runaway loop: crawler"


def test_a_channel_that_does_not_tell_loops_is_left_out(bot: Channel, webhook: Channel, clock: Clock) -> None:
    Channel.objects.filter(pk=bot.pk).update(tells_loops=False)
    incidents.looping(seen(), clock())
    assert [d.channel for d in Delivery.objects.all()] == [webhook]


def test_a_quiet_loop_is_resolved_once_and_threads_hear_of_it(bot: Channel, webhook: Channel, clock: Clock) -> None:
    incidents.looping(seen(), clock())
    incidents.quiet(clock.move(minutes=5), timedelta(minutes=10))
    assert Incident.objects.get().state == IncidentState.OPEN
    for _ in range(3):
        incidents.quiet(clock.move(minutes=10), timedelta(minutes=10))
    assert Incident.objects.get().state == IncidentState.RESOLVED
    assert {(d.channel.name, d.what) for d in Delivery.objects.all()} == {
        ("ops", "opened:1"),
        ("hook", "opened:1"),
        ("ops", "resolved:1"),
    }


def test_a_resolved_loop_is_not_reopened_by_calls_from_before(bot: Channel, clock: Clock, ada: User) -> None:
    incidents.looping(seen(), clock())
    incidents.resolve(Incident.objects.get(), ada, clock.move(minutes=2))
    assert incidents.looping(seen(), clock()) is None
    assert Incident.objects.get().state == IncidentState.RESOLVED


def test_a_loop_that_comes_back_reopens_its_incident_within_a_day_and_is_a_new_one_later(
    bot: Channel, clock: Clock, ada: User
) -> None:
    incidents.looping(seen(), clock())
    incidents.resolve(Incident.objects.get(), ada, clock.move(minutes=2))
    incidents.looping(seen(start=600), clock.move(minutes=10))
    assert Incident.objects.get().openings == 2
    incidents.resolve(Incident.objects.get(), ada, clock.move(minutes=1))
    incidents.looping(seen(start=3 * 86400), clock.move(days=3))
    assert list(Incident.objects.order_by("id").values_list("episode", "state")) == [(1, "resolved"), (2, "open")]
    assert said() == ["opened:1", "opened:2", "opened:1"]
    assert history() == ["opened", "resolved", "reopened", "resolved", "opened"]


def test_what_people_do_is_written_down_once_with_their_name(clock: Clock, ada: User) -> None:
    incidents.looping(seen(), clock())
    incident = Incident.objects.get()
    assert incidents.acknowledge(incident, ada, clock()) is True
    assert incidents.acknowledge(incident, ada, clock()) is False
    until = NOW + timedelta(hours=4)
    assert incidents.snooze(incident, ada, clock(), until) is True
    assert incidents.snooze(incident, ada, clock(), until) is False
    assert incidents.resolve(incident, ada, clock()) is True
    assert incidents.resolve(incident, ada, clock()) is False
    assert incidents.acknowledge(incident, ada, clock()) is False
    assert list(IncidentEvent.objects.order_by("id").values_list("what", "who")) == [
        ("opened", "spendwatch"),
        ("acknowledged", "ada"),
        ("snoozed", "ada"),
        ("resolved", "ada"),
    ]


def test_a_snooze_ends_by_itself(clock: Clock, ada: User) -> None:
    incidents.looping(seen(), clock())
    incidents.snooze(Incident.objects.get(), ada, clock(), NOW + timedelta(hours=4))
    incidents.wake(clock.move(hours=3))
    assert Incident.objects.get().state == IncidentState.SNOOZED
    incidents.wake(clock.move(hours=2))
    assert Incident.objects.get().state == IncidentState.OPEN
