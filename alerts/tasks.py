"""The periodic work of alerts: ask ClickHouse, judge, write incidents; and send what is in the outbox.

Every task may run twice, at once, or die half-way: keys in the database make the second run a no-op. ClickHouse is
asked outside of transactions, so that a slow answer blocks nobody. Never here: SQL, markup.
"""

import logging
from datetime import datetime
from decimal import Decimal

from celery import shared_task
from django.utils import timezone

from alerts import incidents, outbox
from alerts.models import Budget, scope_text
from alerts.rules import budget as budget_rule
from alerts.rules.budget import Period, Terms
from alerts.watch import WATCH
from ledger.clickhouse import connection
from spendwatch.clickhouse import queries
from spendwatch.errors import StoreError

logger = logging.getLogger("spendwatch.alerts")


@shared_task(name="spendwatch.alerts.evaluate_budgets")
def evaluate_budgets() -> None:
    """Judge every active budget by the spend of its current window; a budget that can't be judged holds up no other."""
    incidents.expired(timezone.now())
    for budget in Budget.objects.filter(active=True).select_related("channel"):
        now = timezone.now()
        terms = budget.terms
        try:
            spend = queries.spend(connection("alerts.budgets"), budget.scope, budget_rule.window(terms, now))
        except (StoreError, ValueError) as error:
            # ValueError: a budget that was saved past its form, with a scope or period that means nothing.
            logger.warning("budget %s could not be judged: %s", budget.name, error)
            continue
        judge(budget, terms, spend.cost, spend.unpriced_calls, now)


def judge(budget: Budget, terms: Terms, spent: Decimal, unpriced_calls: int, now: datetime) -> None:
    """Judge one budget, and note what that means. now: as when the spend was asked for, else a window that ended in
    between would hand its spend to the next one.
    """
    breach = budget_rule.judge(terms, spent, now)
    if breach is not None:
        more = {
            "scope": scope_text(budget.scope),
            "period": period_text(terms),
            "unpriced_calls": unpriced_calls,
        }
        incidents.breached(budget, breach, more, now)
    elif terms.period is Period.ROLLING and budget_rule.calmed(terms, spent):
        incidents.calmed(budget, spent, now)


def period_text(terms: Terms) -> str:
    """A budget's period as the end of a sentence: "this month", "in the last 6 hours"."""
    if terms.period is not Period.ROLLING:
        return "today" if terms.period is Period.DAY else f"this {terms.period.value}"
    return "in the last hour" if terms.hours == 1 else f"in the last {terms.hours} hours"


@shared_task(name="spendwatch.alerts.detect_loops")
def detect_loops() -> None:
    """Look for loops in the calls that came in since this process last looked."""
    try:
        WATCH.look(connection("alerts.loops"), timezone.now())
    except StoreError as error:
        logger.warning("calls could not be read for loops: %s", error)


@shared_task(name="spendwatch.alerts.deliver")
def deliver() -> None:
    """Send what is due."""
    incidents.wake(timezone.now())
    outbox.deliver()
