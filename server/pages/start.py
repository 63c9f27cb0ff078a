"""The start page: what was spent today and this month, by whom, on what, and how much of it is not proved.

Every figure is exact and comes from spendwatch.clickhouse.queries or the ledger. When ClickHouse can't be asked, the
page says so and shows what the database knows. Never here: judging the figures.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from ledger.clickhouse import connection
from server import formats
from server.pages.chart import spend_chart
from spendwatch.calls import Window
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection
from spendwatch.errors import SpendwatchError

TOP = 12
"""How many rows a table shows; the rest is one row."""
STALE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table of spend."""

    name: str
    spend: queries.Spend
    share: str
    percent: str
    """The share as a width in CSS."""
    link: str


@dataclass(frozen=True, slots=True)
class Spending:
    """What ClickHouse knows, at one moment."""

    today: queries.Spend
    month: queries.Spend
    by_team: list[Row]
    by_model: list[Row]
    chart: str
    chart_options: str
    chart_step: str
    last_received: datetime | None
    freshness: str
    is_stale: bool
    unmatched_usd: Decimal
    unmatched_days: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the database knows: incidents, and what does not balance."""

    open_incidents: int
    open_variances: int
    unreconciled_usd: Decimal


def context(request: HttpRequest) -> dict[str, Any]:
    """What the start page's template shows."""
    now = timezone.now()
    spending, problem = None, None
    may_see = request.user.has_perm("spendwatch_server.view_call")
    if may_see:
        try:
            spending = _spending(connection("server.start"), now, request.GET.get("chart", ""))
        except SpendwatchError as error:
            problem = str(error)
    return {
        "spending": spending,
        "problem": problem,
        "may_see": may_see,
        "judgement": _judgement() if may_see else None,
        "now": now,
        "is_empty": spending is not None and spending.last_received is None,
        "endpoint": settings.SPENDWATCH.ingest_url,
        "month_name": now.strftime("%B"),
        "links": _links(),
    }


def day_start(now: datetime) -> datetime:
    """Midnight UTC: the day by which statements count."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _spending(ch: Connection, now: datetime, chart: str) -> Spending:
    today = Window(day_start(now), now)
    month = Window(today.start.replace(day=1), now)
    spent = queries.spend(ch, {}, month)
    newest = queries.last_received(ch)
    step, drawn, options = spend_chart(ch, now, chart)
    unmatched = _unmatched(ch, month)
    return Spending(
        today=queries.spend(ch, {}, today),
        month=spent,
        by_team=_rows(ch, "team", month, spent),
        by_model=_rows(ch, "request_model", month, spent),
        chart=drawn,
        chart_options=options,
        chart_step=step,
        last_received=newest,
        freshness=formats.ago(newest, now) if newest else "",
        is_stale=newest is not None and now - newest > STALE,
        unmatched_usd=sum(unmatched, Decimal(0)),
        unmatched_days=len(unmatched),
    )


def _rows(ch: Connection, dimension: str, window: Window, total: queries.Spend) -> list[Row]:
    """The dearest values of a dimension, and all others as one row, so that the table sums up to the total."""
    found = queries.spend_by(ch, [dimension], {}, window, limit=TOP + 1)
    shown = found if len(found) <= TOP else found[: TOP - 1]
    rows = [
        _row(row.key[0] or f"(no {dimension.rpartition('_')[2]})", row.spend, total, _calls_link(dimension, row.key[0]))
        for row in shown
    ]
    if len(shown) < len(found):
        rows.append(_row("all others", _rest(total, [row.spend for row in shown]), total, ""))
    return rows


def _row(name: str, spend: queries.Spend, total: queries.Spend, link: str) -> Row:
    part = spend.cost * 100 / total.cost if total.cost else Decimal(0)
    return Row(name, spend, formats.percent(spend.cost, total.cost), f"{min(part, Decimal(100)):.1f}%", link)


def _rest(total: queries.Spend, shown: list[queries.Spend]) -> queries.Spend:
    return queries.Spend(
        cost=total.cost - sum((one.cost for one in shown), Decimal(0)),
        list_cost=total.list_cost - sum((one.list_cost for one in shown), Decimal(0)),
        calls=total.calls - sum(one.calls for one in shown),
        input_tokens=total.input_tokens - sum(one.input_tokens for one in shown),
        output_tokens=total.output_tokens - sum(one.output_tokens for one in shown),
        cache_read_input_tokens=total.cache_read_input_tokens - sum(one.cache_read_input_tokens for one in shown),
        unpriced_calls=total.unpriced_calls - sum(one.unpriced_calls for one in shown),
    )


def _calls_link(dimension: str, value: str) -> str:
    """The calls of one row; none for the unknown value, which can't be filtered by."""
    if not value:
        return ""
    name = {"request_model": "model"}.get(dimension, dimension)
    return f"{reverse('admin:spendwatch_server_call_changelist')}?{urlencode({'range': 'month', name: value})}"


def _unmatched(ch: Connection, month: Window) -> list[Decimal]:
    """What we recorded at OpenRouter this month, for each day that no reconciliation has looked at yet."""
    done = set(
        apps.get_model("spendwatch_ledger", "Reconciliation")
        ._default_manager.filter(source="openrouter", current=True, day__gte=month.start.date())
        .values_list("day", flat=True)
    )
    points = queries.spend_series(ch, {"provider_name": ["openrouter"]}, month, step="day")
    return [point.cost for point in points if point.start.date() not in done and point.cost]


def _judgement() -> Judgement:
    variances = apps.get_model("spendwatch_ledger", "Variance")._default_manager
    incidents = apps.get_model("spendwatch_alerts", "Incident")._default_manager
    return Judgement(
        open_incidents=incidents.exclude(state="resolved").count(),
        open_variances=variances.open().count(),
        unreconciled_usd=variances.unreconciled_usd(),
    )


def _links() -> dict[str, str]:
    calls = reverse("admin:spendwatch_server_call_changelist")
    return {
        "today": f"{calls}?{urlencode({'range': 'today'})}",
        "month": f"{calls}?{urlencode({'range': 'month'})}",
        "unpriced": f"{calls}?{urlencode({'range': 'month', 'basis': 'unpriced'})}",
        "incidents": reverse("admin:spendwatch_alerts_incident_changelist"),
        "variances": reverse("admin:spendwatch_ledger_variance_changelist"),
        "tokens": reverse("admin:spendwatch_collectors_ingesttoken_changelist"),
    }
