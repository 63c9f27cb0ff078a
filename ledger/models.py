"""What must balance: statements as they were received, their lines, reconciliations, variances, adjustments.

Facts are appended, never updated: a changed document or line is a new version, a new view of a day is a new
reconciliation, a decision about a variance is an adjustment. Times are aware UTC, amounts exact USD. Never here: how a
provider's document is read, what agrees with what (reconcile.py).
"""

from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q

from ledger.fields import UsdField
from ledger.reconcile import VarianceClass


class Statement(models.Model):
    """One document of a provider, verbatim. The same content is kept once; other content is the next version."""

    source = models.CharField(max_length=40, help_text="Who states it: openrouter, ...")
    account = models.CharField(max_length=200)
    kind = models.CharField(max_length=40, help_text="activity, credits, keys, models, generation")
    subject = models.CharField(max_length=200, blank=True, help_text="What it speaks of: a key's hash, a generation.")
    period_start = models.DateField(null=True, blank=True, help_text="First UTC day it speaks of.")
    period_end = models.DateField(null=True, blank=True, help_text="Last UTC day it speaks of.")
    document = models.TextField(help_text="Verbatim, as received.")
    sha256 = models.CharField(max_length=64)
    version = models.PositiveIntegerField()
    collected_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(help_text="When it was last found unchanged.")

    class Meta:
        ordering = ("-collected_at", "-id")
        constraints = [
            models.UniqueConstraint(
                fields=("source", "account", "kind", "subject", "version"), name="ledger_statement_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.account} {self.kind} v{self.version}"


class LineQuerySet(models.QuerySet["StatementLine"]):
    """Lines, and which of them stand."""

    def current(self) -> "LineQuerySet":
        """The newest version of each line."""
        later = StatementLine.objects.filter(
            **{name: OuterRef(name) for name in StatementLine.IDENTITY}, version__gt=OuterRef("version")
        )
        return self.filter(~Exists(later))


class StatementLine(models.Model):
    """One row of a usage statement: what was billed on a UTC day for a model, an endpoint and a key."""

    IDENTITY = ("source", "account", "day", "model", "endpoint_id", "key_hash")

    statement = models.ForeignKey(Statement, on_delete=models.PROTECT, related_name="lines")
    source = models.CharField(max_length=40)
    account = models.CharField(max_length=200)
    day = models.DateField()
    model = models.CharField(max_length=200)
    model_permaslug = models.CharField(max_length=200, blank=True)
    endpoint_id = models.CharField(max_length=100, blank=True)
    provider_name = models.CharField(max_length=200, blank=True, help_text="Who served.")
    key_hash = models.CharField(max_length=64, blank=True, help_text="Empty: billed to no key that is listed.")
    usage = UsdField(help_text="USD taken from the credits.")
    byok_usage = UsdField(help_text="USD that the provider charges directly.")
    requests = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField(null=True, help_text="None: the statement does not say.")
    version = models.PositiveIntegerField()

    objects = LineQuerySet.as_manager()

    class Meta:
        ordering = ("-day", "model", "endpoint_id", "key_hash", "-version")
        constraints = [
            models.UniqueConstraint(
                fields=("source", "account", "day", "model", "endpoint_id", "key_hash", "version"),
                name="ledger_line_version",
            )
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.day} {self.model}"


class ProviderKey(models.Model):
    """A directory of the API keys that a provider lists: what a key's hash is called. Not a fact; it follows the
    newest listing, and keeps keys that are listed no more."""

    source = models.CharField(max_length=40)
    account = models.CharField(max_length=200)
    hash = models.CharField(max_length=64)
    name = models.CharField(max_length=200, blank=True)
    disabled = models.BooleanField(default=False)
    listed_at = models.DateTimeField(help_text="When it was last listed.")

    class Meta:
        ordering = ("source", "account", "name")
        constraints = [models.UniqueConstraint(fields=("source", "account", "hash"), name="ledger_key")]

    def __str__(self) -> str:
        return self.name or self.hash[:12]


class Balance(models.Model):
    """What an account had bought and used in its lifetime at one moment, as its provider states it."""

    statement = models.ForeignKey(Statement, on_delete=models.PROTECT, related_name="balances")
    source = models.CharField(max_length=40)
    account = models.CharField(max_length=200)
    taken_at = models.DateTimeField()
    purchased = UsdField(help_text="USD of credits ever bought.")
    used = UsdField(help_text="USD of credits ever used.")
    used_today = UsdField(help_text="The part of it used since 00:00 UTC, by the listed keys.")

    class Meta:
        ordering = ("-taken_at",)

    def __str__(self) -> str:
        return f"{self.source} {self.account} {self.taken_at:%Y-%m-%d %H:%M}"


class Reconciliation(models.Model):
    """One comparison of a UTC day's statement with the calls recorded. The newest one of a day is current."""

    source = models.CharField(max_length=40)
    day = models.DateField()
    made_at = models.DateTimeField()
    statement_total = UsdField()
    recorded_total = UsdField()
    variance_total = UsdField(help_text="Statement minus recorded: the sum of the variances, to the last digit.")
    cells = models.PositiveIntegerField(help_text="Model x endpoint x key combinations compared.")
    agreed = models.PositiveIntegerField(help_text="Those that agree to the last digit.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of everything found: equal when nothing changed.")
    current = models.BooleanField(default=True)

    class Meta:
        ordering = ("-day", "-made_at")
        constraints = [
            models.UniqueConstraint(
                fields=("source", "day"), condition=Q(current=True), name="ledger_one_current_reconciliation"
            )
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.day}"


class Adjustment(models.Model):
    """A person's decision to accept a difference: the recorded amount is moved by `amount` and no call is changed."""

    source = models.CharField(max_length=40)
    day = models.DateField()
    amount = UsdField()
    reason = models.TextField()
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    made_at = models.DateTimeField()

    class Meta:
        ordering = ("-made_at",)

    def __str__(self) -> str:
        return f"{self.source} {self.day} {self.amount}"


class VarianceQuerySet(models.QuerySet["Variance"]):
    """Variances, and which of them want somebody's attention."""

    def current(self) -> "VarianceQuerySet":
        """Those of the newest reconciliation of each day."""
        return self.filter(reconciliation__current=True)

    def open(self) -> "VarianceQuerySet":
        """Current ones that nobody accepted."""
        return self.current().filter(adjustment=None)

    def unreconciled_usd(self) -> Decimal:
        """The size of what is open: the sum of the amounts, each taken without its sign."""
        amounts = [abs(amount) for amount in self.open().values_list("amount", flat=True)]
        return sum(amounts, Decimal(0))


class Variance(models.Model):
    """A difference between a statement and the recorded calls, of one class, with what speaks for it."""

    CELL = ("day", "model", "endpoint", "key_hash", "variance_class")

    reconciliation = models.ForeignKey(Reconciliation, on_delete=models.CASCADE, related_name="variances")
    source = models.CharField(max_length=40)
    day = models.DateField()
    model = models.CharField(max_length=200)
    endpoint = models.CharField(max_length=200, blank=True)
    key_hash = models.CharField(max_length=200, blank=True)
    key_name = models.CharField(max_length=200, blank=True)
    variance_class = models.CharField("class", max_length=20, choices=[(c.value, c.value) for c in VarianceClass])
    amount = UsdField(help_text="Statement minus recorded, USD.")
    evidence = models.JSONField()
    adjustment = models.ForeignKey(
        Adjustment, null=True, blank=True, on_delete=models.PROTECT, related_name="variances"
    )

    objects = VarianceQuerySet.as_manager()

    class Meta:
        ordering = ("-day", "model", "variance_class")
        indexes = [models.Index(fields=("day", "variance_class"), name="ledger_variance_day")]

    def __str__(self) -> str:
        return f"{self.variance_class} {self.day} {self.model}"

    @property
    def status(self) -> str:
        """accepted by an adjustment, superseded by a newer reconciliation, or open."""
        if self.adjustment_id is not None:
            return "accepted"
        return "open" if self.reconciliation.current else "superseded"

    def identity(self) -> tuple[Any, ...]:
        """What makes it the same difference in a newer reconciliation of its day."""
        return (*(getattr(self, name) for name in self.CELL), self.amount)
