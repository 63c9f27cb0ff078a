"""Running a reconciliation: statement lines and recorded calls of some days, compared and kept.

One reconciliation per source and UTC day. When nothing changed since the last run, nothing is written; else the new one
becomes current, and differences that a person accepted stay accepted. Only days that a statement covers are compared:
where nothing was collected, nothing can be said. Never here: what agrees with what (reconcile.py), SQL.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max, Min

from ledger.evidence import Evidence
from ledger.matching import Names
from ledger.models import ProviderKey, Reconciliation, Statement, StatementLine, Variance
from ledger.reconcile import Cell, Counts, Line, Recorded, reconcile
from ledger.reconcile import Reconciliation as Found
from ledger.reconcile import Variance as FoundVariance
from spendwatch import money
from spendwatch.calls import Window
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.queries import UsageCell


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run did. days: each compared day's current reconciliation. uncovered: days that no statement speaks of."""

    days: list[Reconciliation]
    uncovered: list[date]
    new: int


def run(ch: Connection, *, source: str, first: date, last: date, now: datetime) -> Run:
    """Reconcile the UTC days first to last, both included. Raises StoreError; then no day is half done."""
    covered = coverage(source)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    wanted = {day for day in days if any(start <= day <= end for start, end in covered.values())}
    if not wanted:
        return Run(days=[], uncovered=days, new=0)
    names = Names.read(source)
    account_of = dict(ProviderKey.objects.filter(source=source).values_list("hash", "account"))
    lines: defaultdict[date, list[Line]] = defaultdict(list)
    for stored in StatementLine.objects.filter(source=source, day__in=wanted).current():
        lines[stored.day].append(line(stored, names))
    calls: defaultdict[date, list[UsageCell]] = defaultdict(list)
    for cell in queries.usage_cells(ch, _window(min(wanted), max(wanted)), provider_name=source):
        # Calls of an account that has no statement of the day can't be compared.
        period = covered.get(account_of.get(cell.key_hash, ""))
        if period is None or period[0] <= cell.day <= period[1]:
            calls[cell.day].append(cell)
    evidence = Evidence(ch, source=source, names=names, now=now)
    out: list[Reconciliation] = []
    new = 0
    for day in sorted(wanted):
        found = reconcile(lines[day], [recorded(cell, names) for cell in calls[day]])
        kept, made = keep(source, day, found, evidence, calls[day], now)
        out.append(kept)
        new += made
    return Run(days=out, uncovered=[day for day in days if day not in wanted], new=new)


def coverage(source: str) -> dict[str, tuple[date, date]]:
    """The days that each account's usage statements speak of, from the first to the last."""
    found = (
        Statement.objects.filter(source=source, kind="activity", period_start__isnull=False)
        .values_list("account")
        .annotate(Min("period_start"), Max("period_end"))
    )
    return {account: (start, end) for account, start, end in found}


def line(stored: StatementLine, names: Names) -> Line:
    """A stored line as reconcile takes it."""
    return Line(
        cell=Cell(
            stored.day,
            names.model(stored.model, stored.model_permaslug),
            names.endpoint(stored.provider_name),
            stored.key_hash,
        ),
        usage=stored.usage,
        byok=stored.byok_usage,
        counts=Counts(
            requests=stored.requests,
            input_tokens=stored.input_tokens,
            output_tokens=stored.output_tokens,
            reasoning_tokens=stored.reasoning_tokens,
            cached_tokens=stored.cached_tokens,
        ),
    )


def recorded(cell: UsageCell, names: Names) -> Recorded:
    """A cell of recorded calls as reconcile takes it. Calls that failed before any reply are on no statement."""
    return Recorded(
        cell=Cell(cell.day, names.model(cell.model), names.endpoint(cell.endpoint), cell.key_hash),
        cost=cell.cost,
        byok=cell.byok_cost,
        counts=Counts(
            requests=cell.calls - cell.failed_calls,
            input_tokens=cell.input_tokens,
            output_tokens=cell.output_tokens,
            reasoning_tokens=cell.reasoning_output_tokens,
            cached_tokens=cell.cache_read_input_tokens,
        ),
        unpriced=cell.unpriced_calls - cell.failed_calls,
    )


def keep(
    source: str, day: date, found: Found, evidence: Evidence, cells: Iterable[UsageCell], now: datetime
) -> tuple[Reconciliation, bool]:
    """The reconciliation that holds what was found, and whether it is new."""
    sha256 = _digest(found)
    before = Reconciliation.objects.filter(source=source, day=day, current=True).first()
    if before is not None and before.digest == sha256:
        return before, False
    cells = list(cells)
    variances = [part for variance in found.variances for part in evidence.explain(variance, cells)]
    try:
        return _append(source, day, found, sha256, variances, evidence.key_names, now)
    except IntegrityError:
        # Another worker was the first to look at this day, at this moment: one of the two is current, and it stands.
        return Reconciliation.objects.get(source=source, day=day, current=True), False


def _append(
    source: str,
    day: date,
    found: Found,
    sha256: str,
    variances: list[FoundVariance],
    key_names: Mapping[str, str],
    now: datetime,
) -> tuple[Reconciliation, bool]:
    with transaction.atomic():
        # Two workers at the same day take turns here; the later one looks again.
        before = Reconciliation.objects.select_for_update().filter(source=source, day=day, current=True).first()
        if before is not None and before.digest == sha256:
            return before, False
        accepted: dict[tuple[Any, ...], int] = {}
        if before is not None:
            accepted = {
                variance.identity(): variance.adjustment_id
                for variance in before.variances.exclude(adjustment=None)
                if variance.adjustment_id is not None
            }
            Reconciliation.objects.filter(pk=before.pk).update(current=False)
        kept = Reconciliation.objects.create(
            source=source,
            day=day,
            made_at=now,
            statement_total=money.quantize(found.statement),
            recorded_total=money.quantize(found.recorded),
            variance_total=money.quantize(found.variance),
            cells=found.cells,
            agreed=found.agreed,
            digest=sha256,
        )
        rows = [_row(kept, variance, key_names) for variance in variances]
        for row in rows:
            row.adjustment_id = accepted.get(row.identity())
        Variance.objects.bulk_create(rows)
    return kept, True


def _row(kept: Reconciliation, variance: FoundVariance, key_names: Mapping[str, str]) -> Variance:
    return Variance(
        reconciliation=kept,
        source=kept.source,
        day=kept.day,
        model=variance.cell.model,
        endpoint=variance.cell.endpoint,
        key_hash=variance.cell.key_hash,
        key_name=key_names.get(variance.cell.key_hash, ""),
        variance_class=variance.variance_class.value,
        amount=variance.amount,
        evidence=dict(variance.evidence),
    )


def _digest(found: Found) -> str:
    content = [
        money.text(found.statement),
        money.text(found.recorded),
        found.cells,
        found.agreed,
        [
            [str(v.cell.day), v.cell.model, v.cell.endpoint, v.cell.key_hash, v.variance_class, money.text(v.amount)]
            for v in found.variances
        ],
        [v.evidence for v in found.variances],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _window(first: date, last: date) -> Window:
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    return Window(start, datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1))
