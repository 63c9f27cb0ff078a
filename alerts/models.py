"""Budgets, the incidents they and runaway loops cause, and the messages about them.

Invariants: an incident is a row before it is a message; one cause has one incident at a time; every change of an
incident's state is an IncidentEvent; a threshold of a budget is crossed once per window (Crossing); a message is an
outbox row (Delivery) that exists once per incident, channel and occasion. Never here: asking ClickHouse, talking to
Slack, deciding.
"""

import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, URLValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone
from encrypted_fields.fields import EncryptedTextField

from alerts.rules.budget import Period, Terms
from spendwatch.calls import check_scope

SLACK_API = "https://slack.com/api/"


class ChannelKind(models.TextChoices):
    """How messages reach people."""

    SLACK_WEBHOOK = "slack_webhook", "Slack: incoming webhook"
    SLACK_BOT = "slack_bot", "Slack: bot token"


class Channel(models.Model):
    """Where messages go. A broken channel keeps its messages waiting until it is repaired."""

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=20, choices=ChannelKind.choices)
    secret = EncryptedTextField(
        help_text="Incoming webhook: its URL. Bot: its token (xoxb-…). Kept encrypted and never shown again."
    )
    slack_channel = models.CharField(
        max_length=100, blank=True, verbose_name="Slack channel id", help_text="Bot only: C0123456789."
    )
    base_url = models.CharField(
        max_length=200,
        default=SLACK_API,
        validators=[URLValidator(schemes=["http", "https"])],
        verbose_name="Slack API address",
        help_text="Bot only.",
    )
    tells_loops = models.BooleanField(default=True, verbose_name="tells about runaway loops")
    active = models.BooleanField(default=True)
    broken_at = models.DateTimeField(null=True, blank=True, editable=False)
    broken_reason = models.TextField(blank=True, editable=False)
    not_before = models.DateTimeField(null=True, blank=True, editable=False)
    """Until then the channel is left alone: it asked us to wait, or could not be reached."""
    failures = models.PositiveIntegerField(default=0, editable=False)
    """Attempts in a row that failed for a passing reason."""

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def threaded(self) -> bool:
        """Whether messages can be looked up, updated and answered in a thread."""
        return self.kind == ChannelKind.SLACK_BOT

    def clean(self) -> None:
        """Refuse a secret of the other kind, and a bot without a channel."""
        wrong: dict[str, str] = {}
        if self.kind == ChannelKind.SLACK_WEBHOOK and not (self.secret or "").startswith(("https://", "http://")):
            wrong |= {"secret": "Expected the URL of an incoming webhook (https://hooks.slack.com/services/…)."}
        if self.kind == ChannelKind.SLACK_BOT:
            if not (self.secret or "").startswith("xoxb-"):
                wrong |= {"secret": "Expected a bot token (xoxb-…), as the Slack app shows under OAuth & Permissions."}
            if not self.slack_channel:
                wrong["slack_channel"] = "A bot needs the id of the channel it writes to (C0123456789)."
            if not self.base_url.endswith("/"):
                self.base_url += "/"
        if wrong:
            raise ValidationError(wrong)

    def repaired(self) -> None:
        """Let the waiting messages go again. For after an edit, or a test message that arrived."""
        self.broken_at, self.broken_reason, self.not_before, self.failures = None, "", None, 0
        self.save(update_fields=["broken_at", "broken_reason", "not_before", "failures"])


def default_thresholds() -> list[int]:
    """Half, most, all."""
    return [50, 80, 100]


class Budget(models.Model):
    """What may be spent in a period by the calls that a scope selects. Soft: it tells, it does not stop."""

    name = models.CharField(max_length=100, unique=True)
    scope = models.JSONField(default=dict, blank=True)
    """Dimension -> accepted values (spendwatch.calls.Scope). Empty: every call."""
    amount = models.DecimalField(
        max_digits=18, decimal_places=6, validators=[MinValueValidator(Decimal("0.000001"))], help_text="USD"
    )
    period = models.CharField(max_length=10, choices=[(p.value, p.label) for p in Period], default=Period.MONTH.value)
    hours = models.PositiveIntegerField(null=True, blank=True, help_text="Length of the rolling window.")
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Where a calendar period begins at midnight.")
    thresholds = models.JSONField(default=default_thresholds)
    """Percent of the amount, whole numbers; each is told once per window."""
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, null=True, blank=True, related_name="budgets")
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints = [models.CheckConstraint(condition=models.Q(amount__gt=0), name="budget_amount_is_positive")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a scope, a time zone, thresholds or hours that mean nothing; sort the thresholds."""
        wrong: dict[str, str] = {}
        try:
            check_scope(self.scope)
        except (ValueError, AttributeError, TypeError) as error:
            wrong["scope"] = str(error)
        if self.time_zone not in available_timezones():
            wrong["time_zone"] = f"Expected a time zone such as Europe/Berlin, found {self.time_zone!r}."
        found = self.thresholds
        if not isinstance(found, list) or not found or not all(type(t) is int and 1 <= t <= 1000 for t in found):
            wrong["thresholds"] = "Expected percentages from 1 to 1000, such as 50, 80, 100."
        else:
            self.thresholds = sorted(set(found))
        if self.period == Period.ROLLING and not 1 <= (self.hours or 0) <= 24 * 366:
            wrong["hours"] = "A rolling budget needs the length of its window: 1 to 8784 hours."
        if wrong:
            raise ValidationError(wrong)

    @property
    def terms(self) -> Terms:
        """The budget as the rule reads it."""
        return Terms(
            amount=Decimal(self.amount),
            period=Period(self.period),
            hours=self.hours,
            time_zone=self.time_zone,
            thresholds=tuple(self.thresholds),
        )


class IncidentKind(models.TextChoices):
    """What caused an incident."""

    BUDGET = "budget", "Budget"
    LOOP = "loop", "Runaway loop"


class IncidentState(models.TextChoices):
    """Where an incident stands. It is re-opened by going from resolved to open."""

    OPEN = "open", "Open"
    ACKNOWLEDGED = "acknowledged", "Acknowledged"
    SNOOZED = "snoozed", "Snoozed"
    RESOLVED = "resolved", "Resolved"


class Incident(models.Model):
    """One cause for concern. The same cause coming back soon re-opens it; later, it is the next episode."""

    kind = models.CharField(max_length=10, choices=IncidentKind.choices)
    cause = models.CharField(max_length=200)
    episode = models.PositiveIntegerField(default=1)
    budget = models.ForeignKey(Budget, on_delete=models.SET_NULL, null=True, blank=True, related_name="incidents")
    title = models.CharField(max_length=300)
    state = models.CharField(max_length=15, choices=IncidentState.choices, default=IncidentState.OPEN)
    opened_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    snoozed_until = models.DateTimeField(null=True, blank=True)
    over_at = models.DateTimeField(null=True, blank=True)
    """When the cause was gone, whatever people did with the incident."""
    openings = models.PositiveIntegerField(default=1)
    evidence = models.JSONField(default=dict)
    """Facts only: names, counts, times (ISO 8601), money as decimal strings of USD."""
    version = models.PositiveIntegerField(default=1)
    """Grows with every change a message shows."""

    class Meta:
        ordering = ("-opened_at", "-id")
        constraints = [models.UniqueConstraint(fields=["cause", "episode"], name="one_incident_per_cause")]
        indexes = [models.Index(fields=["kind", "state"])]

    def __str__(self) -> str:
        return self.title

    @property
    def is_over(self) -> bool:
        """Resolved by a person, or by us."""
        return self.state == IncidentState.RESOLVED

    @property
    def url(self) -> str:
        """The incident's page, as people reach it."""
        path = reverse("admin:spendwatch_alerts_incident_change", args=[self.pk])
        return f"{settings.SPENDWATCH.base_url}{path}"


class IncidentEvent(models.Model):
    """One change of an incident: what, when, by whom and why. Never changed."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField()
    what = models.CharField(max_length=30)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True)
    who = models.CharField(max_length=150, default="spendwatch")
    """The name at the time; stays when the user is deleted."""
    why = models.TextField(blank=True)

    class Meta:
        ordering = ("at", "id")

    def __str__(self) -> str:
        return f"{self.what} by {self.who}"


class Crossing(models.Model):
    """One threshold crossed in one window, for one amount. Its row is why it is never told twice."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="crossings")
    threshold = models.PositiveIntegerField()
    amount = models.DecimalField(max_digits=18, decimal_places=6)
    """The budget's amount then: after it was raised, the same percentage is news again."""
    at = models.DateTimeField()
    spent = models.DecimalField(max_digits=30, decimal_places=12)
    covered_by = models.PositiveIntegerField(null=True, blank=True)
    """The tighter threshold whose message spoke for this one too; None: told by itself."""

    class Meta:
        ordering = ("threshold",)
        constraints = [
            models.UniqueConstraint(fields=["incident", "threshold", "amount"], name="one_crossing_per_window")
        ]

    def __str__(self) -> str:
        return f"{self.threshold} %"


class DeliveryState(models.TextChoices):
    """Where a message stands. sending: a worker claimed it; when it died, the message is taken up again."""

    PENDING = "pending", "Waiting"
    SENDING = "sending", "Being sent"
    SENT = "sent", "Sent"
    FAILED = "failed", "Refused"


class Delivery(models.Model):
    """One message to one channel: the outbox. A channel's first one per incident is the root of its thread."""

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    """What the message carries as metadata, so that it can be found again."""
    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="deliveries")
    what = models.CharField(max_length=60)
    """The occasion: threshold:80@500, opened:1, resolved:1."""
    is_root = models.BooleanField(default=False)
    facts = models.JSONField(default=dict)
    """The incident's evidence when the occasion arose."""
    state = models.CharField(max_length=10, choices=DeliveryState.choices, default=DeliveryState.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    first_attempt_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    maybe_sent = models.BooleanField(default=False)
    """An attempt ended without telling whether the message arrived: look before sending again."""
    sent_at = models.DateTimeField(null=True, blank=True)
    slack_channel = models.CharField(max_length=100, blank=True)
    slack_ts = models.CharField(max_length=40, blank=True)
    """Slack's name of the message, text for ever: as a number it would lose digits."""
    shown_version = models.PositiveIntegerField(default=0)
    """The version of the incident that the root message shows."""
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["incident", "channel", "what"], name="one_message_per_occasion")]
        indexes = [models.Index(fields=["state", "next_attempt_at"])]

    def __str__(self) -> str:
        return f"{self.what} to {self.channel}"


LEASE = timedelta(seconds=90)
"""How long a claimed message is left to its worker: longer than an attempt can take."""


def scope_text(scope: Any) -> str:
    """A scope in words: "team: search or shop; agent: crawler"."""
    if not scope:
        return "all calls"
    return "; ".join(f"{name}: {' or '.join(values)}" for name, values in sorted(scope.items()))
