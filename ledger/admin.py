"""The ledger's pages: facts to read, and two verbs: accept a variance, run a reconciliation again."""

# ruff: noqa: ARG002  # the signatures are Django's

import json
from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline

from ledger.balances import piers
from ledger.clickhouse import connection
from ledger.models import (
    Adjustment,
    Balance,
    ProviderKey,
    Reconciliation,
    Statement,
    StatementLine,
    Variance,
)
from ledger.run import run
from spendwatch import money
from spendwatch.errors import StoreError


class Facts:
    """Read-only: nothing is added, changed or deleted by hand. Before a ModelAdmin or an inline."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Statement)
class StatementAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Documents as they were received."""

    list_display = ("collected_at", "source", "account", "kind", "subject", "period_start", "period_end", "version")
    list_filter = ("source", "account", "kind")
    search_fields = ("subject", "sha256")
    date_hierarchy = "collected_at"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Statement]:
        found: QuerySet[Statement] = super().get_queryset(request)
        # A document may have megabytes: the list must not load them.
        return found.defer("document")


@admin.register(StatementLine)
class StatementLineAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """The rows of usage statements, every version of them."""

    list_display = ("day", "account", "model", "provider_name", "key", "usd", "byok_usd", "requests", "version")
    list_filter = ("source", "account", "provider_name")
    search_fields = ("model", "key_hash")
    date_hierarchy = "day"
    list_select_related = False

    @admin.display(description="Key")
    def key(self, line: StatementLine) -> str:
        return line.key_hash[:12] or "no listed key"

    @admin.display(description="Usage, USD", ordering="usage")
    def usd(self, line: StatementLine) -> str:
        return money.text(line.usage)

    @admin.display(description="BYOK, USD", ordering="byok_usage")
    def byok_usd(self, line: StatementLine) -> str:
        return money.text(line.byok_usage)


class VarianceInline(Facts, TabularInline):  # type: ignore[misc]  # as above
    """What one reconciliation found."""

    model = Variance
    fields = ("variance_class", "usd", "model", "endpoint", "key_name", "reason")
    readonly_fields = fields
    extra = 0
    show_change_link = True

    @admin.display(description="USD")
    def usd(self, variance: Variance) -> str:
        return money.text(variance.amount)

    @admin.display(description="Why")
    def reason(self, variance: Variance) -> str:
        return str(variance.evidence.get("reason", ""))


@admin.register(Reconciliation)
class ReconciliationAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """Each day's comparisons, the current one and those before it."""

    list_display = ("day", "source", "statement_usd", "recorded_usd", "variance_usd", "agreed_of", "current", "made_at")
    list_filter = ("current", "source")
    date_hierarchy = "day"
    inlines = (VarianceInline,)
    actions = ("run_again",)

    @admin.display(description="Statement, USD", ordering="statement_total")
    def statement_usd(self, each: Reconciliation) -> str:
        return money.text(each.statement_total)

    @admin.display(description="Recorded, USD", ordering="recorded_total")
    def recorded_usd(self, each: Reconciliation) -> str:
        return money.text(each.recorded_total)

    @admin.display(description="Variance, USD", ordering="variance_total")
    def variance_usd(self, each: Reconciliation) -> str:
        return money.text(each.variance_total)

    @admin.display(description="Agreed")
    def agreed_of(self, each: Reconciliation) -> str:
        return f"{each.agreed} of {each.cells}"

    @admin.action(description="Re-run reconciliation", permissions=["run"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Reconciliation]) -> None:
        changed = 0
        try:
            for source, day in sorted(set(queryset.values_list("source", "day"))):
                done = run(connection("ledger.admin"), source=source, first=day, last=day, now=timezone.now())
                changed += done.new
        except StoreError as error:
            messages.error(request, f"Not all days were compared: {error}")
        else:
            messages.success(request, f"Compared again; {changed} days changed.")

    def has_run_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("spendwatch_ledger.add_reconciliation")


class StatusFilter(admin.SimpleListFilter):
    """Open by default: what wants attention."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("accepted", "accepted"), ("superseded", "superseded"), ("all", "all")]

    def choices(self, changelist: Any) -> Any:
        found = list(super().choices(changelist))
        found[0]["display"] = "open"
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Variance]) -> QuerySet[Variance]:
        match self.value():
            case "accepted":
                return queryset.filter(reconciliation__current=True).exclude(adjustment=None)
            case "superseded":
                return queryset.filter(reconciliation__current=False)
            case "all":
                return queryset
        return queryset.filter(reconciliation__current=True, adjustment=None)


@admin.register(Variance)
class VarianceAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """Differences: what they are, what speaks for them, and accepting them."""

    list_display = ("day", "variance_class", "usd", "model", "endpoint", "key", "reason", "status")
    list_filter = (StatusFilter, "variance_class", "source")
    search_fields = ("model", "key_hash", "key_name")
    date_hierarchy = "day"
    actions = ("accept",)
    list_select_related = ("reconciliation",)
    fields = ("day", "source", "variance_class", "usd", "model", "endpoint", "key", "status", "adjustment", "why")
    readonly_fields = fields

    @admin.display(description="USD", ordering="amount")
    def usd(self, variance: Variance) -> str:
        return money.text(variance.amount)

    @admin.display(description="Key")
    def key(self, variance: Variance) -> str:
        return variance.key_name or variance.key_hash[:12] or "not known"

    @admin.display(description="Why")
    def reason(self, variance: Variance) -> str:
        return str(variance.evidence.get("reason", ""))

    @admin.display(description="Evidence")
    def why(self, variance: Variance) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(variance.evidence, indent=2))

    @admin.action(description="Accept variance", permissions=["accept"])
    def accept(self, request: HttpRequest, queryset: QuerySet[Variance]) -> None:
        accepted = 0
        for variance in queryset:
            accepted += accept(variance, request.user.pk, "accepted in the admin")
        messages.success(request, f"{accepted} accepted, each with an adjustment of its amount.")

    def has_accept_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("spendwatch_ledger.add_adjustment")


def accept(variance: Variance, user_id: int | None, reason: str) -> bool:
    """Append the adjustment that settles an open variance; False when it is not open (any more)."""
    with transaction.atomic():
        found = Variance.objects.select_for_update(of=("self",)).select_related("reconciliation").get(pk=variance.pk)
        if found.status != "open":
            return False
        found.adjustment = Adjustment.objects.create(
            source=found.source,
            day=found.day,
            amount=found.amount,
            reason=f"{found.variance_class}: {reason}",
            made_by_id=user_id,
            made_at=timezone.now(),
        )
        found.save(update_fields=["adjustment"])
    return True


@admin.register(Adjustment)
class AdjustmentAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """Who accepted what."""

    list_display = ("made_at", "day", "source", "usd", "reason", "made_by")
    list_filter = ("source",)

    @admin.display(description="USD", ordering="amount")
    def usd(self, adjustment: Adjustment) -> str:
        return money.text(adjustment.amount)


@admin.register(Balance)
class BalanceAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """What accounts had bought and used, and the bridge: does it grow by what the statements' days add up to?"""

    list_display = ("taken_at", "source", "account", "purchased_usd", "used_usd", "used_today_usd", "beside_usd")
    list_filter = ("source", "account")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        bridges = {
            (source, account, pier.day): pier.difference
            for source in {balance.source for balance in found.result_list}
            for account, pier in piers(source)
        }
        for balance in found.result_list:
            balance.beside = bridges.get((balance.source, balance.account, balance.taken_at.date()))
        return found

    @admin.display(description="Beside the statements until that day, USD")
    def beside_usd(self, balance: Balance) -> str:
        beside: Decimal | None = getattr(balance, "beside", None)
        return "" if beside is None else money.text(beside)

    @admin.display(description="Bought, USD", ordering="purchased")
    def purchased_usd(self, balance: Balance) -> str:
        return money.text(balance.purchased)

    @admin.display(description="Used, USD", ordering="used")
    def used_usd(self, balance: Balance) -> str:
        return money.text(balance.used)

    @admin.display(description="Used that day, USD", ordering="used_today")
    def used_today_usd(self, balance: Balance) -> str:
        return money.text(balance.used_today)


@admin.register(ProviderKey)
class ProviderKeyAdmin(Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """The keys that accounts list."""

    list_display = ("name", "source", "account", "hash", "disabled", "listed_at")
    list_filter = ("source", "account", "disabled")
    search_fields = ("name", "hash")
