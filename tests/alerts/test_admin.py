"""The admin's pages for budgets, channels, incidents and messages."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from alerts import incidents, outbox
from alerts.models import Budget, Channel, Delivery, DeliveryState, Incident, IncidentEvent, IncidentState
from tests.alerts.conftest import Clock
from tests.alerts.test_incidents import spend
from tests.alerts.test_loop_evidence import seen
from tests.fakes.slack import FakeSlack

pytestmark = pytest.mark.django_db

PASSWORD_BACKEND = "django.contrib.auth.backends.ModelBackend"
BUDGET = {
    "name": "search", "amount": "500", "active": "on", "period": "month", "time_zone": "Europe/Berlin", "hours": "",
    "scope_lines": "team: search, shop\nagent: crawler", "thresholds_text": "80 %, 50, 100", "channel": "",
}  # fmt: skip


@pytest.fixture
def owner(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"), backend=PASSWORD_BACKEND)
    return client


@pytest.fixture
def loop(bot: Channel, clock: Clock) -> Incident:
    incident = incidents.looping(seen(), clock())
    assert incident is not None
    return incident


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:spendwatch_alerts_{name}", args=args)


def act(client: Client, model: str, action: str, *rows: Any) -> Any:
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(page(f"{model}_changelist"), data, follow=True)


def test_a_budget_is_typed_as_people_write_it(owner: Client) -> None:
    answer = owner.post(page("budget_add"), BUDGET)
    assert answer.status_code == 302, answer.context["errors"]
    budget = Budget.objects.get()
    assert budget.scope == {"team": ["search", "shop"], "agent": ["crawler"]}
    assert (budget.amount, budget.thresholds, budget.time_zone) == (Decimal(500), [50, 80, 100], "Europe/Berlin")


def test_a_budget_is_shown_as_it_was_typed_and_saved_unchanged(owner: Client) -> None:
    owner.post(page("budget_add"), BUDGET)
    budget = Budget.objects.get()
    form = owner.get(page("budget_change", budget.pk)).context["adminform"].form
    assert form["scope_lines"].value() == "agent: crawler\nteam: search, shop"
    assert form["thresholds_text"].value() == "50, 80, 100"


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("scope_lines", "colour: red", "is not a dimension of spend"),
        ("scope_lines", "team", "Expected a line such as"),
        ("scope_lines", "team: a\nteam: b", "stands on two lines"),
        ("thresholds_text", "eighty", "Expected whole percentages"),
        ("thresholds_text", "0", "Expected whole percentages"),
        ("thresholds_text", "", "required"),
        ("time_zone", "Europe/Atlantis", "Expected a time zone"),
        ("amount", "0", "greater than or equal"),
        ("amount", "-5", "greater than or equal"),
        ("period", "rolling", "needs the length of its window"),
    ],
)
def test_a_budget_that_means_nothing_is_refused_with_a_reason(owner: Client, field: str, typed: str, said: str) -> None:
    answer = owner.post(page("budget_add"), {**BUDGET, field: typed})
    assert answer.status_code == 200
    assert said in str(answer.context["adminform"].form.errors)
    assert not Budget.objects.exists()


CHANNEL = {"name": "ops", "kind": "slack_bot", "secret": "xoxb-42", "slack_channel": "C0OPS", "active": "on"}


def test_a_secret_is_kept_encrypted_and_never_shown_again(owner: Client, slack: FakeSlack) -> None:
    owner.post(page("channel_add"), {**CHANNEL, "base_url": slack.api_url})
    channel = Channel.objects.get()
    assert channel.secret == "xoxb-42"
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM spendwatch_alerts_channel")
        assert "xoxb" not in cursor.fetchone()[0]
    shown = owner.get(page("channel_change", channel.pk)).content.decode()
    assert "xoxb-42" not in shown
    assert "xoxb-42" not in owner.get(page("channel_changelist")).content.decode()


def test_an_empty_secret_keeps_the_saved_one_and_saving_repairs_the_channel(owner: Client, bot: Channel) -> None:
    Channel.objects.filter(pk=bot.pk).update(broken_at="2026-11-20T12:00Z", broken_reason="token_revoked")
    assert "Broken since 2026-11-20" in owner.get(page("channel_changelist")).content.decode()
    data = {**CHANNEL, "secret": "", "base_url": bot.base_url, "slack_channel": "C0NEW"}
    assert owner.post(page("channel_change", bot.pk), data).status_code == 302
    bot.refresh_from_db()
    assert (bot.secret, bot.slack_channel, bot.broken_at) == ("xoxb-1", "C0NEW", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secret": "https://hooks.slack.com/x"}, "Expected a bot token"),
        ({"slack_channel": ""}, "needs the id of the channel"),
        ({"kind": "slack_webhook"}, "Expected the URL of an incoming webhook"),
        ({"secret": ""}, "A channel needs its secret"),
        ({"base_url": "slack"}, "Enter a valid URL"),
    ],
)
def test_a_channel_that_can_not_work_is_refused_with_a_reason(
    owner: Client, slack: FakeSlack, change: dict[str, str], said: str
) -> None:
    answer = owner.post(page("channel_add"), {**CHANNEL, "base_url": slack.api_url, **change})
    assert answer.status_code == 200
    assert said in str(answer.context["adminform"].form.errors)


@pytest.mark.parametrize("kind", ["bot", "webhook"])
def test_a_test_message_arrives(owner: Client, kind: str, slack: FakeSlack, request: pytest.FixtureRequest) -> None:
    channel = request.getfixturevalue(kind)
    answer = act(owner, "channel", "send_test_message", channel)
    assert "the test message arrived" in answer.content.decode()
    assert [message.text for message in slack.messages] == [
        f"Test message from Spendwatch. If you can read this, {channel.name} works."
    ]


def test_a_test_message_that_is_refused_says_why(owner: Client, bot: Channel, slack: FakeSlack) -> None:
    slack.misbehave("error", error="not_in_channel")
    answer = act(owner, "channel", "send_test_message", bot)
    assert "not_in_channel" in answer.content.decode()


@pytest.mark.parametrize(
    ("action", "state", "what"),
    [
        ("acknowledge", IncidentState.ACKNOWLEDGED, "acknowledged"),
        ("snooze", IncidentState.SNOOZED, "snoozed"),
        ("resolve", IncidentState.RESOLVED, "resolved"),
    ],
)
def test_people_act_on_incidents_and_it_is_written_down(
    owner: Client, loop: Incident, action: str, state: str, what: str
) -> None:
    for _ in range(2):
        act(owner, "incident", action, loop)
    loop.refresh_from_db()
    assert loop.state == state
    event = IncidentEvent.objects.filter(what=what).last()
    assert event is not None
    assert event.who == "ada"


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("acknowledge", IncidentState.ACKNOWLEDGED),
        ("snooze", IncidentState.SNOOZED),
        ("resolve", IncidentState.RESOLVED),
    ],
)
def test_the_page_of_an_incident_offers_the_same_and_asks_first(
    owner: Client, loop: Incident, verb: str, state: str
) -> None:
    shown = owner.get(page("incident_change", loop.pk)).content.decode()
    [link] = re.findall(rf'href="([^"]*/{verb}[^"]*)"', shown)
    asked = owner.get(link)
    assert "Runaway loop: crawler" in asked.content.decode()
    loop.refresh_from_db()
    assert loop.state == IncidentState.OPEN
    assert owner.post(link).status_code == 302
    loop.refresh_from_db()
    assert loop.state == state


def test_an_acknowledged_incident_says_so_in_slack(
    owner: Client, loop: Incident, slack: FakeSlack, clock: Clock
) -> None:
    outbox.deliver(clock)
    act(owner, "incident", "acknowledge", loop)
    clock.move(minutes=1)
    outbox.deliver(clock)
    assert "State: acknowledged by ada" in str(slack.messages[0].blocks)


def test_incidents_and_messages_are_facts(owner: Client, loop: Incident) -> None:
    shown = owner.get(page("incident_change", loop.pk)).content.decode()
    assert "Runaway loop: crawler" in shown
    assert "opened:1" in shown
    assert "Open" in shown
    assert "(&#x27;open&#x27;" not in shown
    for name in ("incident", "delivery"):
        assert owner.get(page(f"{name}_add")).status_code == 403
    assert owner.post(page("incident_delete", loop.pk), {"post": "yes"}).status_code == 403
    assert owner.post(page("incident_change", loop.pk), {"title": "x"}).status_code == 403
    assert owner.get(page("delivery_change", Delivery.objects.get().pk)).status_code == 200


def test_a_viewer_sees_incidents_and_can_not_act(client: Client, loop: Incident) -> None:
    viewer = User.objects.create_user("vera", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=["view_incident", "view_channel"]))
    client.force_login(viewer, backend=PASSWORD_BACKEND)
    assert client.get(page("incident_changelist")).status_code == 200
    act(client, "incident", "acknowledge", loop)
    shown = client.get(page("incident_change", loop.pk)).content.decode()
    assert "/acknowledge" not in shown
    loop.refresh_from_db()
    assert loop.state == IncidentState.OPEN


def test_a_refused_message_can_be_sent_again(owner: Client, bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("error", error="msg_too_long")
    spend(Budget.objects.create(name="search", amount=Decimal(500), channel=bot), "420", clock)
    outbox.deliver(clock)
    delivery = Delivery.objects.get()
    assert delivery.state == DeliveryState.FAILED
    act(owner, "delivery", "send_again", delivery)
    clock.move(days=30)
    outbox.deliver(clock)
    assert len(slack.messages) == 1


@pytest.mark.parametrize("name", ["budget", "incident", "delivery"])
def test_lists_ask_the_database_the_same_number_of_times_for_one_row_and_for_many(
    owner: Client, bot: Channel, clock: Clock, name: str, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for n in range(20):
        spend(Budget.objects.create(name=f"b{n}", amount=Decimal(500), channel=bot), "420", clock)
    with django_assert_max_num_queries(20):
        assert owner.get(page(f"{name}_changelist")).status_code == 200
