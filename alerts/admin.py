"""The pages for budgets, channels, incidents and messages.

Budgets and channels are edited; incidents and messages are facts, with verbs as actions (Acknowledge, Snooze, Resolve,
Send again). A channel's secret is typed in and never shown. Never here: the rules.
"""

# ruff: noqa: ARG002  # the signatures are Django's

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display

from alerts import incidents, outbox
from alerts.channels.alert import usd
from alerts.forms import BudgetForm, ChannelForm
from alerts.models import (
    Budget,
    Channel,
    Crossing,
    Delivery,
    DeliveryState,
    Incident,
    IncidentEvent,
    IncidentState,
    scope_text,
)  # fmt: skip
from spendwatch.errors import DeliveryError

SNOOZE = timedelta(hours=4)


class _Facts:
    """What is recorded is neither added, changed nor deleted by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Budget)
class BudgetAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Budgets: what may be spent, by whom, in which period, and who is told."""

    form = BudgetForm
    list_display = ("name", "show_amount", "show_period", "show_scope", "show_thresholds", "channel", "active")
    list_filter = ("active", "period", "channel")
    list_select_related = ("channel",)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "amount", "active")}),
        ("Period", {"fields": ("period", "time_zone", "hours")}),
        ("Which calls", {"fields": ("scope_lines",)}),
        ("Who is told, and when", {"fields": ("thresholds_text", "channel")}),
    )

    @admin.display(description="Amount", ordering="amount")
    def show_amount(self, budget: Budget) -> str:
        return usd(budget.amount)

    @admin.display(description="Period")
    def show_period(self, budget: Budget) -> str:
        return f"last {budget.hours} h" if budget.hours and budget.period == "rolling" else str(budget.period)

    @admin.display(description="Calls")
    def show_scope(self, budget: Budget) -> str:
        return scope_text(budget.scope)

    @admin.display(description="Told at")
    def show_thresholds(self, budget: Budget) -> str:
        return ", ".join(f"{threshold} %" for threshold in budget.thresholds)


@admin.register(Channel)
class ChannelAdmin(ModelAdmin):  # type: ignore[misc]  # as above
    """Channels: where messages go. Saving one, or a test message that arrives, lets its waiting messages go."""

    form = ChannelForm
    list_display = ("name", "kind", "slack_channel", "tells_loops", "active", "show_health", "waiting")
    list_filter = ("kind", "active")
    search_fields = ("name",)
    readonly_fields = ("show_health", "waiting")
    actions = ("send_test_message",)
    fieldsets = (
        (None, {"fields": ("name", "kind", "secret", "slack_channel", "base_url")}),
        ("What it tells", {"fields": ("tells_loops", "active")}),
        ("Health", {"fields": ("show_health", "waiting")}),
    )

    @admin.display(description="Health")
    def show_health(self, channel: Channel) -> str:
        if channel.broken_at is not None:
            return f"Broken since {channel.broken_at:%Y-%m-%d %H:%M} UTC: {channel.broken_reason}"
        if channel.not_before is not None and channel.not_before > timezone.now():
            return f"Waiting until {channel.not_before:%H:%M:%S} UTC, after {channel.failures} failed attempts"
        return "Works"

    @admin.display(description="Messages waiting")
    def waiting(self, channel: Channel) -> int:
        if channel._state.adding:
            return 0
        return channel.deliveries.filter(state__in=(DeliveryState.PENDING, DeliveryState.SENDING)).count()

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change:
            obj.repaired()

    @admin.action(description="Send a test message", permissions=["change"])
    def send_test_message(self, request: HttpRequest, queryset: QuerySet[Channel]) -> None:
        for channel in queryset:
            try:
                outbox.send_test(channel)
            except DeliveryError as error:
                messages.error(request, f"{channel.name}: {error}")
            else:
                channel.repaired()
                messages.success(request, f"{channel.name}: the test message arrived.")


class _EventInline(_Facts, TabularInline):  # type: ignore[misc]  # as above
    model = IncidentEvent
    fields = ("at", "what", "who", "why")
    readonly_fields = fields
    extra = 0
    verbose_name_plural = "history"


class _CrossingInline(_Facts, TabularInline):  # type: ignore[misc]  # as above
    model = Crossing
    fields = ("threshold", "amount", "spent", "at", "covered_by")
    readonly_fields = fields
    extra = 0


class _DeliveryInline(_Facts, TabularInline):  # type: ignore[misc]  # as above
    model = Delivery
    fields = ("what", "channel", "state", "attempts", "sent_at", "error")
    readonly_fields = fields
    extra = 0


@admin.register(Incident)
class IncidentAdmin(_Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """Incidents: facts, and what people did about them."""

    list_display = ("title", "kind", "show_state", "show_dollars", "opened_at", "resolved_at")
    list_filter = ("state", "kind")
    search_fields = ("title",)
    date_hierarchy = "opened_at"
    actions = ("acknowledge", "snooze", "resolve")
    # The same verbs on the page of one incident: that is where a message's link leads.
    actions_detail = ("acknowledge_this", "snooze_this", "resolve_this")
    inlines = (_CrossingInline, _EventInline, _DeliveryInline)
    fields = ("title", "kind", "state", "budget", "opened_at", "resolved_at", "snoozed_until", "show_evidence")
    readonly_fields = fields

    @display(  # type: ignore[untyped-decorator]  # as above
        description="State",
        ordering="state",
        label={
            IncidentState.OPEN: "danger",
            IncidentState.ACKNOWLEDGED: "info",
            IncidentState.SNOOZED: "warning",
            IncidentState.RESOLVED: "success",
        },
    )
    def show_state(self, incident: Incident) -> tuple[str, str]:
        return incident.state, incident.get_state_display()

    @admin.display(description="Dollars")
    def show_dollars(self, incident: Incident) -> str:
        return usd(incident.evidence.get("cost") or incident.evidence.get("spent"))

    @admin.display(description="Evidence")
    def show_evidence(self, incident: Incident) -> SafeString:
        shown = ((name, value) for name, value in incident.evidence.items() if name not in ("loops", "earlier"))
        rows = format_html_join(
            "", '<tr><th class="text-left pr-4">{}</th><td>{}</td></tr>',
            ((name.replace("_", " "), "unknown" if value is None else value) for name, value in shown if value != ""),
        )  # fmt: skip
        return format_html("<table>{}</table>", rows)

    def has_act_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        """Acting on incidents takes the permission to change them, though nobody edits one."""
        return request.user.has_perm("spendwatch_alerts.change_incident")

    @admin.action(description="Acknowledge", permissions=["act"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Incident]) -> None:
        self._each(
            request, queryset, lambda one: incidents.acknowledge(one, _user(request), timezone.now()), "acknowledged"
        )

    @admin.action(description="Snooze 4 h", permissions=["act"])
    def snooze(self, request: HttpRequest, queryset: QuerySet[Incident]) -> None:
        now = timezone.now()
        self._each(request, queryset, lambda one: incidents.snooze(one, _user(request), now, now + SNOOZE), "snoozed")

    @admin.action(description="Resolve", permissions=["act"])
    def resolve(self, request: HttpRequest, queryset: QuerySet[Incident]) -> None:
        self._each(request, queryset, lambda one: incidents.resolve(one, _user(request), timezone.now()), "resolved")

    @action(description="Acknowledge", permissions=["act"], url_path="acknowledge")  # type: ignore[untyped-decorator]
    def acknowledge_this(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return self._one(request, object_id, "Acknowledge", self.acknowledge)

    @action(description="Snooze 4 h", permissions=["act"], url_path="snooze")  # type: ignore[untyped-decorator]
    def snooze_this(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return self._one(request, object_id, "Snooze 4 h", self.snooze)

    @action(description="Resolve", permissions=["act"], url_path="resolve")  # type: ignore[untyped-decorator]
    def resolve_this(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return self._one(request, object_id, "Resolve", self.resolve)

    def _one(
        self,
        request: HttpRequest,
        object_id: int,
        verb: str,
        act: Callable[[HttpRequest, QuerySet[Incident]], None],
    ) -> HttpResponse:
        """Ask first: a button on the page is a link, and following a link must change nothing."""
        incident = get_object_or_404(self.get_queryset(request), pk=object_id)
        if request.method != "POST":
            context = {**self.admin_site.each_context(request), "title": verb, "verb": verb, "incident": incident}
            return render(request, "alerts/confirm.html", {**context, "back": incident.url})
        act(request, self.get_queryset(request).filter(pk=object_id))
        return redirect("admin:spendwatch_alerts_incident_change", object_id)

    def _each(
        self, request: HttpRequest, queryset: QuerySet[Incident], verb: Callable[[Incident], bool], past: str
    ) -> None:
        done = sum(verb(incident) for incident in queryset)
        left = len(queryset) - done
        messages.success(request, f"{done} {past}" + (f", {left} left as they were." if left else "."))


@admin.register(Delivery)
class DeliveryAdmin(_Facts, ModelAdmin):  # type: ignore[misc]  # as above
    """Messages: what was sent where, and what waits."""

    list_display = ("what", "incident", "channel", "show_state", "attempts", "created_at", "sent_at", "error")
    list_filter = ("state", "channel")
    list_select_related = ("incident", "channel")
    actions = ("send_again",)
    fields = (
        "what", "incident", "channel", "state", "is_root", "attempts", "created_at", "next_attempt_at", "sent_at",
        "slack_channel", "slack_ts", "key", "error",
    )  # fmt: skip
    readonly_fields = fields

    @display(  # type: ignore[untyped-decorator]  # as above
        description="State",
        ordering="state",
        label={
            DeliveryState.PENDING: "warning",
            DeliveryState.SENDING: "info",
            DeliveryState.SENT: "success",
            DeliveryState.FAILED: "danger",
        },
    )
    def show_state(self, delivery: Delivery) -> tuple[str, str]:
        return delivery.state, delivery.get_state_display()

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Sending again takes the permission to change a message, though nobody edits one."""
        return request.user.has_perm("spendwatch_alerts.change_delivery")

    @admin.action(description="Send again (refused messages only)", permissions=["act"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        done = queryset.filter(state=DeliveryState.FAILED).update(
            state=DeliveryState.PENDING, next_attempt_at=timezone.now()
        )
        messages.success(request, f"{done} will be sent again.")


def _user(request: HttpRequest) -> Any:
    """The person who acts: signed in, else the admin would not have let them here."""
    return request.user
