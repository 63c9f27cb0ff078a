"""The tasks on a real store: calls in ClickHouse, messages in Slack."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pytest_django import Settings

from alerts import tasks, watch
from alerts.models import Budget, Channel, Delivery, Incident, IncidentState
from spendwatch.calls import PricedCall
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.rows import insert
from tests.alerts.made_up_calls import priced, runaway
from tests.fakes.slack import FakeSlack

pytestmark = pytest.mark.django_db

Record = Callable[..., None]


@pytest.fixture(autouse=True)
def _store(clickhouse: Connection, migrated_store_dsn: str, settings: Settings) -> Iterator[None]:
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    watch.WATCH.forget()
    yield
    watch.WATCH.forget()


@pytest.fixture
def record(clickhouse: Connection) -> Record:
    def insert_now(*calls: PricedCall) -> None:
        insert(clickhouse, calls, received_at=datetime.now(UTC))

    return insert_now


def now() -> datetime:
    return datetime.now(UTC)


def run_all() -> None:
    """What beat has the workers do, one after the other."""
    tasks.evaluate_budgets()
    tasks.detect_loops()
    tasks.deliver()


def test_a_budget_is_judged_by_the_calls_of_its_scope_in_its_period(
    bot: Channel, slack: FakeSlack, record: Record
) -> None:
    Budget.objects.create(name="search", scope={"team": ["search"]}, amount=Decimal(10), channel=bot)
    record(priced(now(), "4.9", team="search"), priced(now(), "50", team="shop"))
    record(priced(now() - timedelta(days=40), "50", team="search"), priced(now(), None, team="search"))
    run_all()
    assert slack.messages == []
    record(priced(now(), "0.1", team="search"))
    run_all()
    run_all()
    (message,) = slack.messages
    assert message.text == "Budget search passed 50 %: 5.00 USD of 10.00 USD (50 %) this month."
    assert "Calls without a price, not in this figure: 1" in str(message.blocks)


def test_a_rolling_budget_sees_only_its_last_hours(bot: Channel, slack: FakeSlack, record: Record) -> None:
    Budget.objects.create(name="burst", amount=Decimal(10), channel=bot, period="rolling", hours=2)
    record(priced(now() - timedelta(hours=3), "50"), priced(now() - timedelta(hours=1), "5.5"))
    run_all()
    (message,) = slack.messages
    assert message.text == "Budget burst passed 50 %: 5.50 USD of 10.00 USD (55 %) in the last 2 hours."


def test_late_calls_cross_the_next_threshold_without_repeating_the_last(
    bot: Channel, slack: FakeSlack, record: Record
) -> None:
    Budget.objects.create(name="burst", amount=Decimal(10), channel=bot, period="rolling", hours=6)
    record(priced(now(), "5.5"))
    run_all()
    record(priced(now() - timedelta(hours=4), "3"))
    run_all()
    run_all()
    assert [m.versions[0].split(":")[0] for m in slack.messages] == [
        "Budget burst passed 50 %",
        "Budget burst passed 80 %",
    ]


def test_an_unreachable_store_is_no_reason_to_fail_or_to_tell(
    bot: Channel, slack: FakeSlack, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = "http://spendwatch:pw@127.0.0.1:9/spendwatch"
    Budget.objects.create(name="search", amount=Decimal(10), channel=bot)
    run_all()
    assert slack.messages == []
    assert "budget search could not be judged" in caplog.text
    assert "calls could not be read for loops" in caplog.text


def test_a_budget_that_means_nothing_holds_up_no_other(
    bot: Channel, slack: FakeSlack, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    Budget.objects.create(name="a", scope={"colour": ["red"]}, amount=Decimal(10), channel=bot)
    Budget.objects.create(name="b", amount=Decimal(10), channel=bot, period="rolling")
    Budget.objects.create(name="c", amount=Decimal(10), channel=bot)
    record(priced(now(), "11"))
    run_all()
    assert [m.text.split(":")[0] for m in slack.messages] == ["Budget c passed 100 %"]
    assert "budget a could not be judged: 'colour' is not a dimension" in caplog.text
    assert "budget b could not be judged: a rolling budget needs its hours" in caplog.text


def test_a_runaway_agent_is_one_incident_and_one_thread(bot: Channel, slack: FakeSlack, record: Record) -> None:
    calls = runaway(now() - timedelta(seconds=200), 12, agent="crawler", session="s1", team="search")
    for call in calls:
        record(call)
        run_all()
    (incident,) = Incident.objects.all()
    assert incident.title == "Runaway loop: crawler"
    assert incident.evidence["cost"] == "0.84"
    assert incident.evidence["calls"] == 12
    assert (incident.evidence["agent"], incident.evidence["tool"]) == ("crawler", "search")
    (message,) = slack.messages
    assert message.versions[0] == "Runaway loop: crawler: search with the same result, 4 times; 0.3500 USD so far."


def test_a_worker_that_starts_in_the_middle_of_a_loop_knows_all_of_it(
    bot: Channel, slack: FakeSlack, record: Record
) -> None:
    calls = runaway(now() - timedelta(seconds=200), 12, agent="crawler", session="s1")
    for call in calls:
        record(call)
        watch.WATCH.forget()
        run_all()
    assert Incident.objects.get().evidence["cost"] == "0.84"
    assert len(slack.messages) == 1


def test_two_workers_that_see_the_same_loop_make_one_incident(bot: Channel, slack: FakeSlack, record: Record) -> None:
    from ledger.clickhouse import connection

    one, two = watch.Watch(), watch.Watch()
    for call in runaway(now() - timedelta(seconds=200), 10, agent="crawler"):
        record(call)
        for worker in (one, two):
            worker.look(connection("tests"), now())
    assert Incident.objects.get().evidence["cost"] == "0.7"
    assert Delivery.objects.count() == 1


def test_a_loop_that_begins_and_ends_between_two_looks_is_seen(bot: Channel, slack: FakeSlack, record: Record) -> None:
    start = now() - timedelta(seconds=200)
    loop = runaway(start, 10, agent="crawler", session="s1")
    after = runaway(start + timedelta(seconds=150), 1, agent="crawler", session="s1")
    record(*loop, *after)
    run_all()
    assert Incident.objects.get().evidence["calls"] == 10


def test_a_loop_that_has_stopped_is_resolved(
    bot: Channel, slack: FakeSlack, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(*runaway(now() - timedelta(seconds=200), 10, agent="crawler"))
    run_all()
    monkeypatch.setattr(watch, "QUIET", timedelta(seconds=1))
    run_all()
    run_all()
    assert Incident.objects.get().state == IncidentState.RESOLVED
    (root,) = slack.roots()
    assert [reply.text for reply in slack.replies(root)] == [
        "The loop of crawler has stopped after 10 calls and 0.7000 USD."
    ]


def test_a_loop_of_long_ago_in_calls_that_came_late_is_no_emergency(bot: Channel, record: Record) -> None:
    record(*runaway(now() - timedelta(hours=5), 10, agent="crawler"))
    run_all()
    assert not Incident.objects.exists()


def test_healthy_agents_are_no_incident(bot: Channel, record: Record) -> None:
    for n in range(30):
        record(*runaway(now() - timedelta(seconds=200), 4, agent="crawler", session=f"s{n}"))
    run_all()
    assert not Incident.objects.exists()


def test_more_calls_than_a_page_are_all_read(
    bot: Channel, slack: FakeSlack, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PAGE", 3)
    calls = runaway(now() - timedelta(seconds=200), 12, agent="crawler")
    from ledger.clickhouse import connection

    for number, call in enumerate(calls):
        insert(connection("tests"), [call], received_at=now() - timedelta(minutes=12 - number))
    run_all()
    assert Incident.objects.get().evidence["calls"] == 12
