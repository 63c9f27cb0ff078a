"""The outbox: gets every message (Delivery) to its channel once, through crashes and an unreachable Slack.

A worker claims a message by a conditional UPDATE with a lease, sends it, and notes the result. A worker that dies
between the two leaves a lease that runs out; the next one then first looks the message up in Slack by its key (bot),
and only when it is not there sends it. A webhook can't be looked up: there an attempt of unknown end is sent again, so
a message may, rarely, appear twice rather than be lost.

A channel that asks to wait or can't be reached is left alone for a while, others go on. A channel that refuses for
good is marked broken: its messages wait until it is repaired. Never here: what is worth a message.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from alerts.channels import slack
from alerts.channels.alert import Alert, describe
from alerts.models import LEASE, Channel, Delivery, DeliveryState, Incident, IncidentKind, IncidentState
from spendwatch.errors import DeliveryError

logger = logging.getLogger("spendwatch.alerts")

FIRST_WAIT = timedelta(seconds=4)
LONGEST_WAIT = timedelta(minutes=5)
REFRESH_EVERY = timedelta(seconds=10)
REFRESH_BUDGET_EVERY = timedelta(minutes=1)
"""At most so often is a message updated in place. Slack allows about 50 updates a minute in all; a loop is urgent, a
budget is open for weeks."""
PER_RUN = 50


def deliver(clock: Callable[[], datetime] = timezone.now) -> int:
    """Send what is due and bring root messages up to date; the number of messages sent or updated."""
    done = 0
    for channel in _ready_channels(clock()):
        for delivery in _due(channel, clock())[:PER_RUN]:
            claimed = _claim(delivery, clock())
            if claimed is None:
                continue
            if not _attempt(channel, claimed, clock):
                break
            done += 1
        else:
            done += _refresh(channel, clock)
    return done


def send_test(channel: Channel) -> None:
    """Send a message that says it is a test. Raises DeliveryError."""
    note = f"If you can read this, {channel.name} works."
    alert = Alert(
        headline="Test message from Spendwatch",
        text=f"Test message from Spendwatch. {note}",
        facts=(),
        notes=("Nothing has happened.",),
        times=(),
        url="",
        incident="test",
        key="test",
    )
    payload = slack.render(alert)
    if channel.threaded:
        _bot(channel).post(payload)
    else:
        _webhook(channel).post(payload)


def alert_of(delivery: Delivery) -> Alert:
    """What a message says: the facts of its occasion, whatever happened since."""
    facts = dict(delivery.facts)
    return _describe(delivery, delivery.what, "", facts)


def current_alert_of(root: Delivery) -> Alert:
    """What the first message of a thread shows by now. Its headline keeps the threshold it was sent for."""
    incident = root.incident
    facts = dict(incident.evidence)
    if incident.kind == IncidentKind.BUDGET:
        facts["threshold"] = root.facts["threshold"]
    return _describe(root, "now", _state_text(incident), facts)


def _describe(delivery: Delivery, what: str, state: str, facts: dict[str, Any]) -> Alert:
    incident = delivery.incident
    return describe(
        incident.kind, what, state, incident.title, facts,
        url=incident.url, incident=str(incident.pk), key=str(delivery.key),
    )  # fmt: skip


def _state_text(incident: Incident) -> str:
    last = incident.events.filter(what=incident.state).last()
    text = str(incident.state) + (f" by {last.who}" if last is not None and last.user_id else "")
    if incident.state == IncidentState.SNOOZED and incident.snoozed_until:
        text += f" until {incident.snoozed_until:%Y-%m-%d %H:%M} UTC"
    return text


def _ready_channels(now: datetime) -> QuerySet[Channel]:
    return Channel.objects.filter(Q(not_before=None) | Q(not_before__lte=now), active=True, broken_at=None)


def _due(channel: Channel, now: datetime) -> QuerySet[Delivery]:
    """Waiting messages, and those whose worker died; replies only once the root of their thread is there."""
    waiting = Q(state=DeliveryState.PENDING, next_attempt_at__lte=now)
    left = Q(state=DeliveryState.SENDING, lease_until__lte=now)
    snoozed = Q(incident__state=IncidentState.SNOOZED, incident__snoozed_until__gt=now)
    due = Delivery.objects.filter(waiting | left, channel=channel).exclude(snoozed)
    if channel.threaded:
        gone = (DeliveryState.SENT, DeliveryState.FAILED)
        rooted = Delivery.objects.filter(channel=channel, is_root=True, state__in=gone).values("incident")
        due = due.filter(Q(is_root=True) | Q(incident__in=rooted))
    return due.select_related("incident").order_by("id")


def _claim(delivery: Delivery, now: datetime) -> Delivery | None:
    """Take a message for this worker; None when another one was first. The attempt's number is the claim's name."""
    taken = Delivery.objects.filter(pk=delivery.pk, state=delivery.state, attempts=delivery.attempts).update(
        state=DeliveryState.SENDING,
        attempts=F("attempts") + 1,
        lease_until=now + LEASE,
        first_attempt_at=delivery.first_attempt_at or now,
    )
    if not taken:
        return None
    # Died in the middle: whether its message went out is not known.
    if delivery.state == DeliveryState.SENDING:
        delivery.maybe_sent = True
    delivery.attempts += 1
    delivery.first_attempt_at = delivery.first_attempt_at or now
    return delivery


def _attempt(channel: Channel, delivery: Delivery, clock: Callable[[], datetime]) -> bool:
    """Send one claimed message and note how it went; False when the channel is to be left alone for now."""
    try:
        place = _send(channel, delivery, clock)
    except _LostError:
        logger.warning("message %s was taken over by another worker", delivery.key)
        return True
    except slack.MessageRefusedError as error:
        logger.warning("%s refused %s: %s", channel.name, delivery.what, error)
        _note(delivery, state=DeliveryState.FAILED, error=str(error), maybe_sent=False)
        return True
    except DeliveryError as error:
        unsure = delivery.maybe_sent or isinstance(error, slack.UnsureError)
        wait = _set_back(channel, error, clock())
        _note(
            delivery, state=DeliveryState.PENDING, error=str(error), maybe_sent=unsure, next_attempt_at=clock() + wait
        )
        return False
    _note(
        delivery,
        state=DeliveryState.SENT,
        sent_at=clock(),
        error="",
        maybe_sent=False,
        slack_channel=place[0],
        slack_ts=place[1],
        shown_version=delivery.facts.get("version", 0),
        next_attempt_at=clock() + REFRESH_EVERY,
    )
    if channel.failures:
        Channel.objects.filter(pk=channel.pk).update(failures=0, not_before=None)
    return True


class _LostError(Exception):
    """The lease ran out before the message went out, and another worker has it."""


def _send(channel: Channel, delivery: Delivery, clock: Callable[[], datetime]) -> tuple[str, str]:
    """Get a message to Slack; its (channel id, ts), empty for a webhook. Raises DeliveryError."""
    payload = slack.render(alert_of(delivery))
    if not channel.threaded:
        _webhook(channel).post(payload)
        return "", ""
    bot = _bot(channel)
    thread = None if delivery.is_root else _thread(delivery)
    if delivery.maybe_sent and delivery.first_attempt_at is not None:
        found = _look_up(bot, delivery, thread)
        if found is not None:
            return found
        # Looking may have taken long. From here on only one request stands between us and the note.
        mine = Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.SENDING, attempts=delivery.attempts)
        if not mine.update(lease_until=clock() + LEASE):
            raise _LostError
    try:
        return bot.post(payload, thread)
    except slack.MessageGoneError:
        # Somebody deleted the root: better a message of its own than none.
        return bot.post(payload)


def _look_up(bot: slack.Bot, delivery: Delivery, thread: tuple[str, str] | None) -> tuple[str, str] | None:
    assert delivery.first_attempt_at is not None  # noqa: S101  # for the type checker: a claim sets it
    try:
        return bot.find(str(delivery.key), delivery.first_attempt_at, thread)
    except slack.MessageGoneError:
        return None
    except DeliveryError as error:
        if not error.permanent:
            raise
        # Without the right to read the channel a bot is no better than a webhook: rather twice than never.
        logger.warning("message %s can't be looked up, so it is sent again: %s", delivery.key, error)
        return None


def _thread(delivery: Delivery) -> tuple[str, str] | None:
    root = Delivery.objects.filter(incident=delivery.incident_id, channel=delivery.channel_id, is_root=True).first()
    return (root.slack_channel, root.slack_ts) if root is not None and root.slack_ts else None


def _refresh(channel: Channel, clock: Callable[[], datetime]) -> int:
    """Update the root messages that show less than is known. Doing it twice does no harm, so no lease is needed."""
    if not channel.threaded:
        return 0
    behind = Delivery.objects.filter(
        channel=channel, is_root=True, state=DeliveryState.SENT, next_attempt_at__lte=clock(),
        shown_version__lt=F("incident__version"),
    ).exclude(slack_ts="")  # fmt: skip
    done = 0
    for root in behind.select_related("incident")[:PER_RUN]:
        version = root.incident.version
        taken = Delivery.objects.filter(pk=root.pk, next_attempt_at=root.next_attempt_at)
        if not taken.update(next_attempt_at=clock() + _refresh_every(root.incident)):
            continue
        try:
            _bot(channel).update((root.slack_channel, root.slack_ts), slack.render(current_alert_of(root)))
        except (slack.MessageGoneError, slack.MessageRefusedError) as error:
            # Deleted or too old to edit: what happens from now on is told in replies.
            logger.info("message %s is not updated: %s", root.key, error)
        except DeliveryError as error:
            if error.permanent:
                _set_back(channel, error, clock())
            # An update can wait, and must not hold up a message: Slack counts the two apart.
            roots = Delivery.objects.filter(channel=channel, is_root=True, state=DeliveryState.SENT)
            roots.update(next_attempt_at=clock() + timedelta(seconds=error.retry_after_s or 60))
            break
        Delivery.objects.filter(pk=root.pk, shown_version__lt=version).update(shown_version=version)
        done += 1
    return done


def _refresh_every(incident: Incident) -> timedelta:
    return REFRESH_EVERY if incident.kind == IncidentKind.LOOP else REFRESH_BUDGET_EVERY


def _set_back(channel: Channel, error: DeliveryError, now: datetime) -> timedelta:
    """Note a channel's failure; how long to leave it alone. A permanent one breaks the channel."""
    if error.permanent:
        logger.error("channel %s is broken: %s", channel.name, error)
        Channel.objects.filter(pk=channel.pk, broken_at=None).update(broken_at=now, broken_reason=str(error))
        return timedelta(0)
    wait: timedelta = min(FIRST_WAIT * int(2 ** min(channel.failures, 10)), LONGEST_WAIT)
    if error.retry_after_s is not None:
        wait = max(timedelta(seconds=error.retry_after_s), timedelta(seconds=1))
    logger.warning("channel %s waits %d s: %s", channel.name, wait.total_seconds(), error)
    Channel.objects.filter(pk=channel.pk).update(failures=F("failures") + 1, not_before=now + wait)
    return wait


def _note(delivery: Delivery, **fields: Any) -> None:
    """Write down how the attempt ended, unless the lease ran out and another worker has it by now."""
    Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.SENDING, attempts=delivery.attempts).update(
        lease_until=None, **fields
    )


def _secret(channel: Channel) -> str:
    # The field hands out what it can't decrypt as it is; to Slack that would look like a wrong token.
    if channel.secret.startswith("gAAAA"):
        raise DeliveryError(
            "the secret can't be decrypted: SPENDWATCH_SECRET_KEY is not the one it was saved with. Enter it again.",
            permanent=True,
        )
    return str(channel.secret)


def _bot(channel: Channel) -> slack.Bot:
    return slack.Bot(_secret(channel), channel.slack_channel, channel.base_url)


def _webhook(channel: Channel) -> slack.Webhook:
    return slack.Webhook(_secret(channel))
