"""The periodic work on OpenRouter accounts. Each task may run twice or die half-way: nothing is counted twice."""

import logging

from celery import shared_task
from django.utils import timezone

from collectors.openrouter.collect import collect
from collectors.openrouter.models import OpenRouterAccount
from collectors.openrouter.settle import settle
from ledger.clickhouse import connection
from spendwatch.errors import CollectError, ReadError, StoreError

log = logging.getLogger("spendwatch.collectors.openrouter")


@shared_task(name="spendwatch.collectors.collect_openrouter")
def collect_openrouter() -> None:
    """Collect every active account. One that refuses is noted on its page and holds up no other."""
    for account in OpenRouterAccount.objects.filter(active=True):
        try:
            collected = collect(account, now=timezone.now())
        except (CollectError, ReadError) as error:
            log.error("collecting failed: %s", error)
        else:
            log.info("collected %s: %d documents, %d lines", account.name, collected.documents, collected.lines)


@shared_task(name="spendwatch.collectors.settle")
def settle_openrouter() -> None:
    """Settle aborted and unpriced calls by their generation."""
    try:
        found = settle(connection("collectors.settle"), now=timezone.now())
    except StoreError as error:
        # The next run is minutes away and asks for the same calls.
        log.warning("calls could not be settled: %s", error)
        return
    if found.settled:
        log.info("settled %d calls, %d are open", found.settled, found.waiting)
