"""Keeping statements: append-only, one version for each content.

`keep` files a document verbatim; `keep_lines` files the rows read from it. What did not change makes no new row, so a
collector may run as often as it likes. Call them inside one transaction, so that a statement is there whole or not at
all. Never here: fetching, reading a provider's format.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from ledger.models import Statement, StatementLine

ZERO = Decimal(0)


def digest(document: str) -> str:
    """SHA-256 hex of a document."""
    return hashlib.sha256(document.encode()).hexdigest()


def newest(source: str, account: str, kind: str, subject: str = "") -> Statement | None:
    """The newest version of a document, None when there is none."""
    found = Statement.objects.filter(source=source, account=account, kind=kind, subject=subject)
    return found.order_by("-version").first()


def keep(
    *,
    source: str,
    account: str,
    kind: str,
    document: str,
    now: datetime,
    subject: str = "",
    period: tuple[date, date] | None = None,
) -> tuple[Statement, bool]:
    """The statement that holds this document, and whether it is new. period: first and last UTC day it speaks of."""
    last = newest(source, account, kind, subject)
    sha256 = digest(document)
    start, end = period or (None, None)
    if last is not None and (last.sha256, last.period_start, last.period_end) == (sha256, start, end):
        Statement.objects.filter(pk=last.pk).update(confirmed_at=now)
        return last, False
    statement = Statement.objects.create(
        source=source,
        account=account,
        kind=kind,
        subject=subject,
        period_start=start,
        period_end=end,
        document=document,
        sha256=sha256,
        version=1 if last is None else last.version + 1,
        collected_at=now,
        confirmed_at=now,
    )
    return statement, True


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """A row of a usage statement as a collector read it; see StatementLine for the meaning of its fields."""

    statement: Statement
    day: date
    model: str
    model_permaslug: str
    endpoint_id: str
    provider_name: str
    key_hash: str
    usage: Decimal
    byok_usage: Decimal
    requests: int
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int | None


_FACTS = (
    "model_permaslug", "provider_name", "usage", "byok_usage", "requests",
    "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens",
)  # fmt: skip


def keep_lines(
    rows: Iterable[UsageRow], *, source: str, account: str, statement: Statement, withdrawn: tuple[date, date]
) -> int:
    """File the rows; how many lines are new. A line that stands but is stated no more, on a day within `withdrawn`
    (both inclusive), becomes a version of nothing, filed under `statement`."""
    rows = list(rows)
    oldest = min([withdrawn[0], *(row.day for row in rows)])
    standing = {
        (line.day, line.model, line.endpoint_id, line.key_hash): line
        for line in StatementLine.objects.filter(source=source, account=account, day__gte=oldest).current()
    }
    new: list[StatementLine] = []
    stated = set()
    for row in rows:
        key = (row.day, row.model, row.endpoint_id, row.key_hash)
        stated.add(key)
        facts = {name: getattr(row, name) for name in _FACTS}
        last = standing.get(key)
        if last is None or any(getattr(last, name) != value for name, value in facts.items()):
            new.append(_line(source, account, row.statement, key, last, facts))
    for key, last in standing.items():
        gone = key not in stated and withdrawn[0] <= last.day <= withdrawn[1]
        if gone and (last.requests or last.usage or last.byok_usage):
            facts = {name: getattr(last, name) for name in _FACTS}
            nothing = {"usage": ZERO, "byok_usage": ZERO, "requests": 0, "input_tokens": 0, "output_tokens": 0,
                       "reasoning_tokens": 0, "cached_tokens": 0}  # fmt: skip
            new.append(_line(source, account, statement, key, last, facts | nothing))
    StatementLine.objects.bulk_create(new, batch_size=500)
    return len(new)


def _line(
    source: str,
    account: str,
    statement: Statement,
    key: tuple[date, str, str, str],
    last: StatementLine | None,
    facts: dict[str, object],
) -> StatementLine:
    day, model, endpoint_id, key_hash = key
    return StatementLine(
        statement=statement,
        source=source,
        account=account,
        day=day,
        model=model,
        endpoint_id=endpoint_id,
        key_hash=key_hash,
        version=1 if last is None else last.version + 1,
        **facts,
    )
