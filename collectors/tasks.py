"""The background work of what came in: hourly sums of the calls."""

import logging
import threading

from celery import shared_task

from collectors.openrouter.tasks import collect_openrouter, settle_openrouter
from ledger.clickhouse import connection
from spendwatch.clickhouse import rollup
from spendwatch.errors import StoreError

__all__ = ["collect_openrouter", "roll", "settle_openrouter"]

log = logging.getLogger("spendwatch.collectors")

_rolling = threading.Lock()


@shared_task(name="spendwatch.clickhouse.roll")
def roll() -> None:
    """Rebuild the hourly sums of the hours whose calls changed. Running twice, or dying half-way, changes nothing."""
    # Scheduled every few seconds: a pass that takes longer is not joined by another that would do the same.
    if not _rolling.acquire(blocking=False):
        return
    try:
        result = rollup.roll(connection("collectors.roll"))
    except StoreError as error:
        # The next pass comes in seconds and does it all; until then reads that must be exact use the calls themselves.
        log.warning("the hourly sums could not be brought up to date: %s", error)
    else:
        if result.hours:
            log.info("rolled %d hours in %.2f s", result.hours, result.duration_s)
    finally:
        _rolling.release()
