"""The price book the server values calls with: the packaged one and the newest collected snapshot of OpenRouter's.

Read again about once a minute. A call that arrives late is valued with the snapshot that is newest when it arrives; the
version it was valued with stands in its row.
"""

import json
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal

from ledger.models import Statement
from spendwatch.prices import PriceBook, packaged

KEEP_S = 60.0
# Snapshots say what a price is, not since when.
_ALWAYS = datetime(2020, 1, 1, tzinfo=UTC)

_lock = threading.Lock()
_kept: tuple[float, str, PriceBook] | None = None


def current_book() -> PriceBook:
    """The book as of now, cached for a minute in this process."""
    global _kept
    with _lock:
        if _kept is not None and time.monotonic() - _kept[0] < KEEP_S:
            return _kept[2]
        newest = Statement.objects.filter(source="openrouter", kind="models").order_by("-collected_at", "-id").first()
        sha256 = newest.sha256 if newest else ""
        if _kept is not None and _kept[1] == sha256:
            book = _kept[2]
        elif newest is None:
            book = packaged()
        else:
            book = packaged().with_openrouter_models(
                json.loads(newest.document, parse_float=Decimal),
                effective_from=_ALWAYS,
                version=f"openrouter-{newest.collected_at:%Y-%m-%d}-{sha256[:8]}",
            )
        _kept = (time.monotonic(), sha256, book)
        return book


def forget() -> None:
    """Read the snapshot anew at the next call."""
    global _kept
    with _lock:
        _kept = None
