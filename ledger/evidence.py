"""What speaks for a variance beyond the counts: which key, which apps, which calls.

Where calls were recorded that nobody billed, the ones that make the difference are looked for: calls whose tokens add
up to exactly what is missing. Found, they are named and their cost is split off, so that what remains of the cell is
judged on its own. The parts always add up to the whole. Never here: the classes' rules (reconcile.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import combinations
from typing import Any

from ledger.matching import Names
from ledger.models import ProviderKey
from ledger.reconcile import Tolerance, Variance, VarianceClass
from spendwatch import money
from spendwatch.calls import Window
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.queries import UsageCell
from spendwatch.clickhouse.stored import StoredCall

NAMED_CALLS = 10
"""Calls named in one variance; the count says how many there are."""
SEARCHED_CALLS = 2000
SEARCHED_PAIRS = 300
"""Pairs are searched among that many calls at most: 45,000 sums."""
KNOWN_FOR = timedelta(days=35)


class Evidence:
    """Answers for one run; what it asks ClickHouse is asked only for cells that differ."""

    def __init__(self, ch: Connection, *, source: str, names: Names, now: datetime) -> None:
        self._ch = ch
        self._source = source
        self._names = names
        self._now = now
        self._apps: dict[str, list[dict[str, str]]] = {}
        self.key_names: Mapping[str, str] = dict(ProviderKey.objects.filter(source=source).values_list("hash", "name"))

    def explain(self, variance: Variance, cells: Sequence[UsageCell]) -> list[Variance]:
        """The variance with its evidence, perhaps in parts that add up to it. cells: the day's. Raises StoreError."""
        evidence = {**variance.evidence, **self._key(variance.cell.key_hash)}
        variance = replace(variance, evidence=evidence)
        match variance.variance_class:
            case VarianceClass.UNOBSERVED:
                apps = self._apps_of(variance.cell.key_hash)
                return [replace(variance, evidence={**evidence, "apps_with_this_key": apps})]
            case VarianceClass.UNBILLED | VarianceClass.UNEXPLAINED if _more_seen(evidence):
                return split_unbilled(variance, self._calls(variance, cells))
            case VarianceClass.LATE:
                calls = [call for call in self._calls(variance, cells) if call.effective_cost is None]
                return [replace(variance, evidence={**evidence, "calls": [_plain(c) for c in calls[:NAMED_CALLS]]})]
            case _:
                return [variance]

    def _key(self, key_hash: str) -> dict[str, Any]:
        return {"key": {"hash": key_hash, "name": self.key_names.get(key_hash)}} if key_hash else {}

    def _apps_of(self, key_hash: str) -> list[dict[str, str]]:
        """The apps seen with a key lately: none means that no app under watch uses it."""
        if not key_hash:
            return []
        if key_hash not in self._apps:
            rows = queries.spend_by(
                self._ch,
                ["service_name", "team"],
                {"key_hash": [key_hash]},
                Window(self._now - KNOWN_FOR, self._now.astimezone(UTC)),
                limit=NAMED_CALLS,
            )
            self._apps[key_hash] = [{"service_name": row.key[0], "team": row.key[1]} for row in rows]
        return self._apps[key_hash]

    def _calls(self, variance: Variance, cells: Sequence[UsageCell]) -> list[StoredCall]:
        """The recorded calls behind a variance's cell."""
        cell = variance.cell
        together = variance.evidence.get("compared_together") or [
            {"endpoint": cell.endpoint, "key_hash": cell.key_hash}
        ]
        out: list[StoredCall] = []
        for known in cells:
            place = {"endpoint": self._names.endpoint(known.endpoint), "key_hash": known.key_hash}
            if self._names.model(known.model) == cell.model and place in together:
                out += queries.cell_calls(
                    self._ch,
                    known.day,
                    known.model,
                    known.endpoint,
                    known.key_hash,
                    limit=SEARCHED_CALLS,
                    provider_name=self._source,
                )
        return out


def _more_seen(evidence: Mapping[str, Any]) -> bool:
    return bool(evidence["recorded"]["requests"] > evidence["statement"]["requests"])


def split_unbilled(variance: Variance, calls: Sequence[StoredCall]) -> list[Variance]:
    """Name the calls that were not billed. Where exactly one choice of them makes the difference in calls and tokens,
    their cost is the unbilled part; the rest of the amount, if any, is a rounding or a price."""
    statement, recorded = variance.evidence["statement"], variance.evidence["recorded"]
    missing = recorded["requests"] - statement["requests"]
    tokens = (
        recorded["input_tokens"] - statement["input_tokens"],
        recorded["output_tokens"] - statement["output_tokens"],
    )
    if not statement["requests"]:
        return [_with_calls(variance, [call for call in calls if call.effective_cost])]
    found = _choose(calls, missing, tokens)
    if found is None:
        return [variance]
    with localcontext() as context:
        context.prec = 60
        unbilled = -sum((call.effective_cost or Decimal(0) for call in found), Decimal(0))
        rest = variance.amount - unbilled
    named = replace(
        variance,
        variance_class=VarianceClass.UNBILLED,
        amount=unbilled,
        evidence={**variance.evidence, "reason": f"{missing} more recorded than billed: the ones below"},
    )
    parts = [_with_calls(named, found)] if unbilled else []
    if rest:
        allowed = Tolerance().of(Decimal(statement["usage"]) + Decimal(statement["byok"]))
        kind = VarianceClass.ROUNDING if abs(rest) <= allowed else VarianceClass.PRICE
        reason = f"what remains of {money.text(variance.amount)} USD beside the calls that were not billed"
        parts.append(
            replace(variance, variance_class=kind, amount=rest, evidence={**variance.evidence, "reason": reason})
        )
    return parts


def _choose(calls: Sequence[StoredCall], count: int, tokens: tuple[int, int]) -> Sequence[StoredCall] | None:
    """The one choice of `count` calls that has these input and output tokens; None when there is none, or several that
    differ in cost, or too many to search."""
    if count > 2 or (count == 2 and len(calls) > SEARCHED_PAIRS):
        return None
    fitting: list[Sequence[StoredCall]] = []
    for chosen in combinations(calls, count):
        usages = [call.call.usage for call in chosen]
        if (sum(u.input_tokens or 0 for u in usages), sum(u.output_tokens or 0 for u in usages)) == tokens:
            fitting.append(chosen)
    costs = {_cost(chosen) for chosen in fitting}
    # Calls alike in tokens and cost can't be told apart, and needn't be: the amount is the same.
    return fitting[0] if len(costs) == 1 else None


def _cost(calls: Iterable[StoredCall]) -> Decimal:
    return sum((call.effective_cost or Decimal(0) for call in calls), Decimal(0))


def _with_calls(variance: Variance, calls: Sequence[StoredCall]) -> Variance:
    apps = sorted({(call.call.service_name or "", call.call.tags.team or "") for call in calls})
    evidence = {
        **variance.evidence,
        "calls": [_plain(call) for call in calls[:NAMED_CALLS]],
        "apps": [{"service_name": service, "team": team} for service, team in apps[:NAMED_CALLS]],
    }
    return replace(variance, evidence=evidence)


def _plain(call: StoredCall) -> dict[str, Any]:
    return {
        "response_id": call.call.response_id,
        "started_at": call.call.started_at.isoformat(),
        "status": call.call.status.value,
        "cost": None if call.effective_cost is None else money.text(call.effective_cost),
        "input_tokens": call.call.usage.input_tokens,
        "output_tokens": call.call.usage.output_tokens,
        "service_name": call.call.service_name,
        "agent": call.call.tags.agent,
    }
