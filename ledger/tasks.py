"""The daily reconciliation. Running it twice, or dying in the middle, changes nothing."""

import logging
from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from ledger.clickhouse import connection
from ledger.models import Statement
from ledger.run import run
from spendwatch.errors import StoreError

LOOK_BACK_DAYS = 35
"""A statement may still change, and an account may be collected for the first time, 30 days later."""

log = logging.getLogger("spendwatch.ledger")


@shared_task(name="spendwatch.ledger.reconcile_recent")
def reconcile_recent() -> None:
    """Reconcile the last days of every source that has usage statements."""
    now = timezone.now()
    sources = Statement.objects.filter(kind="activity").order_by().values_list("source", flat=True).distinct()
    for source in sources:
        first = now.date() - timedelta(days=LOOK_BACK_DAYS)
        try:
            done = run(connection("ledger.reconcile"), source=source, first=first, last=now.date(), now=now)
        except StoreError as error:
            log.error("%s could not be reconciled: %s; the next night looks at the same days", source, error)
            continue
        log.info("reconciled %s: %d days, %d changed", source, len(done.days), done.new)
