"""Messages on their way: once each, through every fault of the other side."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User

from alerts import incidents, outbox
from alerts.models import LEASE, Budget, Channel, Delivery, DeliveryState, Incident
from tests.alerts.conftest import NOW, Clock
from tests.alerts.test_incidents import spend
from tests.alerts.test_loop_evidence import seen
from tests.fakes.slack import FakeSlack

pytestmark = pytest.mark.django_db

Texts = Callable[[], list[str]]


def alarm(channel: Channel, clock: Clock, usd: str = "420", name: str = "search") -> Budget:
    """A budget of 500 USD that has spent `usd`."""
    budget, _ = Budget.objects.get_or_create(name=name, defaults={"amount": Decimal(500), "channel": channel})
    spend(budget, usd, clock)
    return budget


def settle(clock: Clock, minutes: int = 30) -> None:
    """Let the task run every so often for a while."""
    for _ in range(minutes):
        outbox.deliver(clock)
        clock.move(minutes=1)


@pytest.mark.parametrize("kind", ["bot", "webhook"])
def test_a_message_is_sent_once_and_noted(
    kind: str, slack: FakeSlack, clock: Clock, request: pytest.FixtureRequest, texts: Texts
) -> None:
    channel = request.getfixturevalue(kind)
    alarm(channel, clock)
    settle(clock)
    assert texts() == ["Budget search passed 80 %: 420.00 USD of 500.00 USD (84 %) this month."]
    delivery = Delivery.objects.get()
    assert delivery.state == DeliveryState.SENT
    if kind == "bot":
        assert (delivery.slack_channel, delivery.slack_ts) == ("C0OPS", slack.messages[0].ts)


def test_further_thresholds_are_replies_in_one_thread(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    for usd in ("260", "410", "510"):
        alarm(bot, clock, usd)
        settle(clock, 2)
    (root,) = slack.roots()
    assert [reply.versions[0].split(":")[0] for reply in slack.replies(root)] == [
        "Budget search passed 80 %",
        "Budget search passed 100 %",
    ]
    assert all(reply.broadcast for reply in slack.replies(root))
    assert root.versions[-1] == "Budget search passed 50 %: 510.00 USD of 500.00 USD (102 %) this month."


def test_a_thread_waits_for_its_first_message(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("html500", method="chat.postMessage", times=1)
    alarm(bot, clock, "260")
    alarm(bot, clock, "410")
    settle(clock)
    (root,) = slack.roots()
    assert root.versions[0].startswith("Budget search passed 50 %")
    assert len(slack.replies(root)) == 1


def test_a_running_loop_is_one_message_that_is_kept_up_to_date(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    for calls in range(5, 12):
        incidents.looping(seen(calls=calls, cost=str(calls)), clock.move(seconds=10))
        outbox.deliver(clock)
    incidents.quiet(clock.move(minutes=20), timedelta(minutes=10))
    outbox.deliver(clock)
    (root,) = slack.roots()
    assert "4 times; 5.00 USD so far" in root.versions[0]
    assert "10 times; 11.00 USD so far" in root.versions[-2]
    assert root.versions[-1].startswith("Resolved: Runaway loop: crawler")
    assert [reply.text for reply in slack.replies(root)] == [
        "The loop of crawler has stopped after 11 calls and 11.00 USD."
    ]


def test_a_message_is_not_updated_when_nothing_changed(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    alarm(bot, clock)
    settle(clock, 5)
    for _ in range(5):
        alarm(bot, clock)
        settle(clock, 1)
    assert len(slack.messages[0].versions) == 1


def test_a_message_is_updated_at_most_every_ten_seconds(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    for calls in range(5, 65):
        incidents.looping(seen(calls=calls), clock.move(seconds=1))
        outbox.deliver(clock)
    assert 2 <= len(slack.messages[0].versions) <= 7


@pytest.mark.parametrize("kind", ["bot", "webhook"])
def test_a_rate_limit_is_obeyed(
    kind: str, slack: FakeSlack, clock: Clock, request: pytest.FixtureRequest, texts: Texts
) -> None:
    channel = request.getfixturevalue(kind)
    slack.misbehave("ratelimited", seconds=90)
    alarm(channel, clock)
    alarm(channel, clock, name="other")
    outbox.deliver(clock)
    outbox.deliver(clock)
    asked = len(slack.requests)
    clock.move(seconds=89)
    outbox.deliver(clock)
    assert (len(slack.requests), texts()) == (asked, [])
    clock.move(seconds=1)
    outbox.deliver(clock)
    assert len(texts()) == 2


@pytest.mark.parametrize("fault", ["html500", "refuse", "ratelimited"])
@pytest.mark.parametrize("kind", ["bot", "webhook"])
def test_a_slack_that_is_down_for_a_while_loses_no_message(
    kind: str, fault: str, slack: FakeSlack, clock: Clock, request: pytest.FixtureRequest, texts: Texts
) -> None:
    channel = request.getfixturevalue(kind)
    slack.misbehave(fault, times=6)
    alarm(channel, clock, "260")
    alarm(channel, clock, "410")
    settle(clock, 60)
    assert [text.split(":")[0] for text in texts()] == ["Budget search passed 50 %", "Budget search passed 80 %"]
    assert Delivery.objects.filter(state=DeliveryState.SENT).count() == 2


def test_attempts_grow_rarer_while_slack_is_down(webhook: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("html500", times=-1)
    alarm(webhook, clock)
    for _ in range(3600):
        outbox.deliver(clock)
        clock.move(seconds=1)
    assert 8 <= len(slack.requests) <= 20


def test_one_channels_trouble_holds_up_no_other(bot: Channel, webhook: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("ratelimited", channel="C0HOOK", seconds=600)
    alarm(webhook, clock, name="first")
    alarm(bot, clock, name="second")
    outbox.deliver(clock)
    assert [message.channel for message in slack.messages] == ["C0OPS"]


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("bot", "not_in_channel", 200),
        ("bot", "token_revoked", 200),
        ("bot", "missing_scope", 200),
        ("bot", "is_archived", 200),
        ("webhook", "no_service", 404),
        ("webhook", "channel_is_archived", 410),
        ("webhook", "action_prohibited", 403),
    ],
)
def test_a_refusal_for_good_marks_the_channel_and_its_messages_wait_for_the_repair(
    kind: str, error: str, status: int, slack: FakeSlack, clock: Clock, request: pytest.FixtureRequest, texts: Texts
) -> None:
    channel = request.getfixturevalue(kind)
    slack.misbehave("error", error=error, status=status, times=-1)
    alarm(channel, clock)
    settle(clock)
    assert len(slack.requests) == 1
    channel.refresh_from_db()
    assert error in channel.broken_reason
    assert Delivery.objects.get().state == DeliveryState.PENDING
    slack.behave()
    alarm(channel, clock, "510")
    settle(clock)
    assert texts() == []
    channel.repaired()
    settle(clock)
    assert len(texts()) == 2


def test_a_message_that_slack_refuses_holds_up_no_other(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("error", error="invalid_blocks")
    alarm(bot, clock, name="first")
    alarm(bot, clock, name="second")
    settle(clock)
    first, second = Delivery.objects.order_by("id")
    assert (first.state, second.state) == (DeliveryState.FAILED, DeliveryState.SENT)
    assert "invalid_blocks" in first.error


def test_an_unreachable_slack_is_tried_again(webhook: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.stop()
    alarm(webhook, clock)
    outbox.deliver(clock)
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.maybe_sent) == (DeliveryState.PENDING, False)
    assert "could not be reached" in delivery.error


@pytest.mark.parametrize("fault", ["drop", "html500"])
def test_a_bot_looks_before_it_sends_again(fault: str, bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave(fault, method="chat.postMessage")
    alarm(bot, clock, "260")
    alarm(bot, clock, "410")
    settle(clock)
    slack.misbehave(fault, method="chat.postMessage")
    alarm(bot, clock, "510")
    settle(clock)
    (root,) = slack.roots()
    assert len(slack.replies(root)) == 2
    assert Delivery.objects.get(is_root=True).slack_ts == root.ts
    assert all(d.slack_ts for d in Delivery.objects.all())


def test_a_webhook_can_not_look_and_sends_again(webhook: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("drop")
    alarm(webhook, clock)
    settle(clock)
    assert len(slack.messages) == 2


def test_a_bot_that_may_not_read_the_channel_sends_again(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("drop", method="chat.postMessage")
    slack.misbehave("error", error="missing_scope", method="conversations.history", times=-1)
    alarm(bot, clock)
    settle(clock)
    assert len(slack.messages) == 2
    assert Channel.objects.get(pk=bot.pk).broken_at is None


def test_a_lookup_that_fails_for_now_is_no_reason_to_send_again(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("drop", method="chat.postMessage")
    slack.misbehave("ratelimited", method="conversations.history", times=3)
    alarm(bot, clock)
    settle(clock)
    assert len(slack.messages) == 1
    assert Delivery.objects.get().state == DeliveryState.SENT


def test_a_message_is_found_behind_many_others(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    slack.misbehave("drop", method="chat.postMessage")
    alarm(bot, clock)
    outbox.deliver(clock)
    client = outbox._bot(bot)
    for n in range(250):
        client.post({"text": f"chatter {n}"})
    clock.move(minutes=1)
    outbox.deliver(clock)
    assert Delivery.objects.get().slack_ts == slack.messages[0].ts
    assert len(slack.messages) == 251


def test_a_worker_that_died_with_a_claim_is_replaced_after_its_lease(
    bot: Channel, slack: FakeSlack, clock: Clock
) -> None:
    alarm(bot, clock)
    assert outbox._claim(Delivery.objects.get(), clock()) is not None
    outbox.deliver(clock)
    assert slack.messages == []
    clock.now += LEASE
    outbox.deliver(clock)
    assert len(slack.messages) == 1


def test_a_worker_that_died_after_it_sent_is_not_repeated(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    alarm(bot, clock)
    claimed = outbox._claim(Delivery.objects.get(), clock())
    assert claimed is not None
    outbox._send(bot, claimed, clock)
    clock.now += LEASE
    settle(clock)
    assert len(slack.messages) == 1
    assert Delivery.objects.get().slack_ts == slack.messages[0].ts


def test_a_worker_that_wakes_up_after_its_lease_overwrites_nothing(
    bot: Channel, slack: FakeSlack, clock: Clock
) -> None:
    alarm(bot, clock)
    late = outbox._claim(Delivery.objects.get(), clock())
    assert late is not None
    clock.now += LEASE
    settle(clock, 1)
    outbox._note(late, state=DeliveryState.PENDING)
    assert Delivery.objects.get().state == DeliveryState.SENT


def test_a_worker_that_looked_for_too_long_leaves_the_message_to_the_next(
    bot: Channel, slack: FakeSlack, clock: Clock
) -> None:
    alarm(bot, clock)
    slow = outbox._claim(Delivery.objects.get(), clock())
    assert slow is not None
    clock.now += LEASE
    settle(clock, 1)
    slack.messages.clear()
    slow.maybe_sent = True
    with pytest.raises(outbox._LostError):
        outbox._send(bot, slow, clock)
    assert slack.messages == []


def test_of_two_workers_that_find_an_abandoned_message_one_takes_it(
    bot: Channel, slack: FakeSlack, clock: Clock
) -> None:
    alarm(bot, clock)
    outbox._claim(Delivery.objects.get(), clock())
    clock.now += LEASE
    one, two = Delivery.objects.get(), Delivery.objects.get()
    assert outbox._claim(one, clock()) is not None
    assert outbox._claim(two, clock()) is None


def test_a_deleted_message_is_not_updated_for_ever(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    alarm(bot, clock)
    settle(clock, 1)
    slack.messages.clear()
    alarm(bot, clock, "430")
    settle(clock, 10)
    updates = [request for request in slack.requests if request.method == "chat.update"]
    assert len(updates) == 1
    assert Channel.objects.get(pk=bot.pk).broken_at is None


def test_a_snoozed_incident_sends_what_came_up_when_the_snooze_ends(
    bot: Channel, slack: FakeSlack, clock: Clock
) -> None:
    budget = alarm(bot, clock, "260")
    settle(clock, 1)
    incidents.snooze(Incident.objects.get(), User.objects.create_user("ada"), clock(), NOW + timedelta(hours=4))
    spend(budget, "510", clock)
    settle(clock, 30)
    assert len(slack.messages) == 1
    incidents.wake(clock.move(hours=4))
    settle(clock, 2)
    assert [m.versions[0].split(":")[0] for m in slack.messages] == [
        "Budget search passed 50 %",
        "Budget search passed 100 %",
    ]


def test_a_secret_that_can_not_be_decrypted_breaks_the_channel_with_a_clear_word(
    bot: Channel, slack: FakeSlack, clock: Clock
) -> None:
    Channel.objects.filter(pk=bot.pk).update(secret="gAAAAABsomethingelse")
    channel = Channel.objects.get(pk=bot.pk)
    channel.secret = "gAAAAABsomethingelse"
    alarm(bot, clock)
    with pytest.raises(outbox.DeliveryError, match="SPENDWATCH_SECRET_KEY"):
        outbox._bot(channel)


def test_an_update_that_slack_puts_off_holds_up_no_message(bot: Channel, slack: FakeSlack, clock: Clock) -> None:
    incidents.looping(seen(), clock())
    settle(clock, 1)
    slack.misbehave("ratelimited", method="chat.update", seconds=300)
    incidents.looping(seen(calls=9), clock())
    outbox.deliver(clock)
    alarm(bot, clock)
    outbox.deliver(clock)
    assert len(slack.messages) == 2
    clock.move(seconds=250)
    outbox.deliver(clock)
    assert len(slack.messages[0].versions) == 1
    clock.move(seconds=60)
    outbox.deliver(clock)
    assert len(slack.messages[0].versions) == 2
