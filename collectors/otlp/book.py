"""The price book that calls are valued with as they come in: the packaged one and the newest collected prices.

Held for some seconds, so that new prices count without a restart and requests don't wait for the database. When the
book can't be read anew the last one stays. Never here: prices, their rules.
"""

import logging
import threading
import time
from collections.abc import Callable

from django.db import close_old_connections

from ledger.prices import current_book
from spendwatch.prices import PriceBook, packaged

log = logging.getLogger("spendwatch.collectors.otlp")

REFRESH_S = 15.0


class Book:
    """The current price book, asked by the threads that read requests."""

    def __init__(self, load: Callable[[], PriceBook] | None = None, *, refresh_s: float = REFRESH_S) -> None:
        self._load = load or _load
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._book: PriceBook | None = None
        self._loaded_at = 0.0

    def current(self) -> PriceBook:
        """The book; at most refresh_s old unless the database is away."""
        book = self._book
        if book is not None and time.monotonic() - self._loaded_at < self._refresh_s:
            return book
        # One thread loads; the others go on with the book they have.
        if not self._lock.acquire(blocking=book is None):
            return book or packaged()
        try:
            if self._book is None or time.monotonic() - self._loaded_at >= self._refresh_s:
                try:
                    self._book = self._load()
                except Exception:
                    log.exception("the collected prices can't be read; calls are valued with the last ones")
                    self._book = self._book or packaged()
                self._loaded_at = time.monotonic()
            return self._book
        finally:
            self._lock.release()


def _load() -> PriceBook:
    # A thread's connection may have gone stale since the last time, and must not outlive this.
    close_old_connections()
    try:
        return current_book()
    finally:
        close_old_connections()
