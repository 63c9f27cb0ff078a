"""The price book the server values calls with: the packaged one, OpenRouter's newest collected prices, and those of
each provider behind it for the models in use.

Read again about once a minute. A call that arrives late is valued with the snapshot that is newest when it arrives; the
version it was valued with stands in its row.
"""

import json
import threading
import time
from decimal import Decimal

from django.db.models import Max

from ledger.models import Statement
from spendwatch.prices import PriceBook, packaged

KEEP_S = 60.0
_lock = threading.Lock()
_kept: tuple[float, str, PriceBook] | None = None


def current_book() -> PriceBook:
    """The book as of now, cached for a minute in this process."""
    global _kept
    with _lock:
        if _kept is not None and time.monotonic() - _kept[0] < KEEP_S:
            return _kept[2]
        newest = Statement.objects.filter(source="openrouter", kind="models").order_by("-collected_at", "-id").first()
        last = Statement.objects.filter(source="openrouter", kind="endpoints").aggregate(Max("id"))["id__max"]
        snapshot = f"{newest.pk if newest else None}-{last}"
        if _kept is not None and _kept[1] == snapshot:
            book = _kept[2]
        elif newest is None:
            book = packaged()
        else:
            book = _with_snapshot(packaged(), newest)
        _kept = (time.monotonic(), snapshot, book)
        return book


def _with_snapshot(book: PriceBook, models: Statement) -> PriceBook:
    version = f"openrouter-{models.collected_at:%Y-%m-%d}-{models.sha256[:8]}"
    book = book.with_openrouter_models(_read(models), effective_from=models.collected_at, version=version)
    endpoints = Statement.objects.filter(source="openrouter", kind="endpoints").order_by("collected_at", "id")
    # By subject, so that of each model's documents only the newest is read.
    newest = {statement.subject: statement.pk for statement in endpoints.only("subject")}
    documents = Statement.objects.filter(pk__in=list(newest.values())).iterator()
    return book.with_openrouter_endpoints(map(_read, documents), version=version)


def _read(statement: Statement) -> dict[str, object]:
    document: dict[str, object] = json.loads(statement.document, parse_float=Decimal)
    return document


def forget() -> None:
    """Read the snapshot anew at the next call."""
    global _kept
    with _lock:
        _kept = None
