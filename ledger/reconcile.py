"""Reconciling usage: a statement's lines against the calls recorded, per UTC day, model, endpoint and key.

Invariant: neither makes nor loses a cent. The variances of a reconciliation add up to statement minus recorded, to the
last digit, in whatever order the inputs come. A variance gets a class only where the counts speak for it; where they
don't, it stays unexplained. Pure: it never reads a database, a clock or a price.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Any

from spendwatch import money

ZERO = Decimal(0)
HALF_A_CENT = Decimal("0.005")


class VarianceClass(StrEnum):
    """Why a statement and the recorded calls differ."""

    UNOBSERVED = "unobserved"
    """Billed, never seen."""
    UNBILLED = "unbilled"
    """Seen, not billed."""
    PRICE = "price"
    """The same calls and tokens at another price."""
    TOKENS = "tokens"
    """The same calls with other token counts."""
    CACHE_SPLIT = "cache_split"
    """The same tokens, another part of them read from the cache."""
    BYOK = "byok"
    """Another part of the cost is charged by the provider directly."""
    LATE = "late"
    """Seen, but what it cost is not known yet; settling will tell."""
    ROUNDING = "rounding"
    """Counts agree; the amounts differ within the tolerance."""
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """The grain of a usage statement. endpoint is the serving provider's name; "" for endpoint or key: not known."""

    day: date
    model: str
    endpoint: str
    key_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a cell counts. cached_tokens is a part of input_tokens, None when not stated."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int | None = None

    def __add__(self, other: "Counts") -> "Counts":
        cached = None
        if self.cached_tokens is not None and other.cached_tokens is not None:
            cached = self.cached_tokens + other.cached_tokens
        return Counts(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cached_tokens=cached,
        )


NOTHING = Counts(cached_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a statement. usage: USD from the credits. byok: USD the provider charges directly."""

    cell: Cell
    usage: Decimal
    byok: Decimal = ZERO
    counts: Counts

    @property
    def cost(self) -> Decimal:
        """Everything it states, USD."""
        return self.usage + self.byok


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The calls recorded in one cell, added up.

    cost: their effective cost, USD; a call of unknown cost adds 0 and is counted in `unpriced`. byok: the part of cost
    that the provider charges directly.
    """

    cell: Cell
    cost: Decimal
    byok: Decimal = ZERO
    counts: Counts
    unpriced: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far amounts may be apart and still be a rounding, when the counts agree.

    The larger of absolute_usd and `relative` of the statement's amount, but never above cap_usd: no statement in
    dollars and cents rounds by more than half a cent, so beyond it a difference is a price.
    """

    absolute_usd: Decimal = Decimal("0.000001")
    relative: Decimal = Decimal("0.005")
    cap_usd: Decimal = HALF_A_CENT

    def of(self, amount: Decimal) -> Decimal:
        """The tolerance for a statement's amount, USD."""
        return max(self.absolute_usd, min(abs(amount) * self.relative, self.cap_usd))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """One difference. amount: statement minus recorded, USD. evidence: plain JSON values, amounts as text."""

    cell: Cell
    variance_class: VarianceClass
    amount: Decimal
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What was found. cells: how many were compared; agreed: how many of them to the last digit."""

    variances: tuple[Variance, ...]
    statement: Decimal
    recorded: Decimal
    cells: int
    agreed: int

    @property
    def variance(self) -> Decimal:
        """Statement minus recorded, USD: the sum of the variances."""
        return _sum([self.statement, -self.recorded])


def reconcile(lines: Iterable[Line], calls: Iterable[Recorded], tolerance: Tolerance | None = None) -> Reconciliation:
    """Compare a statement's lines with the recorded calls, cell by cell."""
    tolerance = tolerance or Tolerance()
    pairs = _pairs(lines, calls)
    variances: list[Variance] = []
    agreed = 0
    for pair in pairs:
        if pair.difference == 0:
            agreed += 1
            continue
        variance_class, reason = judge(pair, tolerance)
        evidence = {"reason": reason, **pair.evidence(), "tolerance": money.text(tolerance.of(pair.statement))}
        variances.append(
            Variance(cell=pair.cell, variance_class=variance_class, amount=pair.difference, evidence=evidence)
        )
    return Reconciliation(
        variances=tuple(sorted(variances, key=lambda v: (v.cell, v.variance_class))),
        statement=_sum(pair.statement for pair in pairs),
        recorded=_sum(pair.recorded for pair in pairs),
        cells=len(pairs),
        agreed=agreed,
    )


@dataclass(slots=True)
class Pair:
    """A cell's two sides. A cell of unknown endpoint or key stands for all the cells it was compared with."""

    cell: Cell
    lines: list[Line] = field(default_factory=list)
    calls: list[Recorded] = field(default_factory=list)

    @property
    def statement(self) -> Decimal:
        """What is stated, USD."""
        return _sum(line.cost for line in self.lines)

    @property
    def recorded(self) -> Decimal:
        """What was recorded, USD."""
        return _sum(call.cost for call in self.calls)

    @property
    def difference(self) -> Decimal:
        """Statement minus recorded, USD."""
        return _sum([self.statement, -self.recorded])

    @property
    def billed(self) -> Counts:
        """What the statement counts."""
        return _counts(line.counts for line in self.lines)

    @property
    def seen(self) -> Counts:
        """What was recorded."""
        return _counts(call.counts for call in self.calls)

    @property
    def byok_difference(self) -> Decimal:
        """Of what the provider charges directly: statement minus recorded, USD."""
        return _sum([*(line.byok for line in self.lines), *(-call.byok for call in self.calls)])

    @property
    def unpriced(self) -> int:
        """Recorded calls of unknown cost."""
        return sum(call.unpriced for call in self.calls)

    def evidence(self) -> dict[str, Any]:
        """Both sides, as plain JSON."""
        statement = {
            "usage": money.text(_sum(line.usage for line in self.lines)),
            "byok": money.text(_sum(line.byok for line in self.lines)),
            **_plain(self.billed),
        }
        recorded = {
            "cost": money.text(self.recorded),
            "byok": money.text(_sum(call.byok for call in self.calls)),
            **_plain(self.seen),
            "unpriced": self.unpriced,
        }
        evidence: dict[str, Any] = {"statement": statement, "recorded": recorded}
        cells = {line.cell for line in self.lines} | {call.cell for call in self.calls}
        together = sorted((cell.endpoint, cell.key_hash) for cell in cells)
        if len(together) > 1:
            evidence["compared_together"] = [{"endpoint": endpoint, "key_hash": key} for endpoint, key in together]
        return evidence


def judge(pair: Pair, tolerance: Tolerance) -> tuple[VarianceClass, str]:
    """The class of a pair's difference, and the sentence that says why."""
    difference, billed, seen = pair.difference, pair.billed, pair.seen
    if not pair.calls:
        return VarianceClass.UNOBSERVED, f"{_calls(billed.requests)} billed, none recorded"
    if not pair.lines:
        return VarianceClass.UNBILLED, f"{_calls(seen.requests)} recorded, none billed"
    requests = billed.requests - seen.requests
    input_tokens = billed.input_tokens - seen.input_tokens
    output_tokens = billed.output_tokens - seen.output_tokens
    more_tokens = input_tokens >= 0 and output_tokens >= 0 and input_tokens + output_tokens > 0
    fewer_tokens = input_tokens <= 0 and output_tokens <= 0 and input_tokens + output_tokens < 0
    if pair.unpriced and requests <= 0 < difference:
        return VarianceClass.LATE, f"the cost of {_calls(pair.unpriced)} recorded is not known yet"
    if requests > 0 and more_tokens and difference > 0 and not pair.unpriced:
        return VarianceClass.UNOBSERVED, f"{_calls(requests)} more billed than recorded"
    if requests < 0 and fewer_tokens and difference < 0:
        return VarianceClass.UNBILLED, f"{_calls(-requests)} more recorded than billed"
    if requests != 0 or pair.unpriced:
        return VarianceClass.UNEXPLAINED, "requests, tokens and amounts don't point the same way"
    if (more_tokens and difference > 0) or (fewer_tokens and difference < 0):
        return VarianceClass.TOKENS, f"the same calls with {input_tokens:+} input and {output_tokens:+} output tokens"
    if input_tokens or output_tokens:
        return VarianceClass.UNEXPLAINED, "the tokens differ, but not the way the amounts do"
    return _same_tokens(pair, tolerance)


def _same_tokens(pair: Pair, tolerance: Tolerance) -> tuple[VarianceClass, str]:
    """The class where requests, input and output tokens agree."""
    allowed = tolerance.of(pair.statement)
    if abs(pair.byok_difference) > allowed:
        return VarianceClass.BYOK, "another part is charged by the provider directly"
    if abs(pair.difference) <= allowed:
        return VarianceClass.ROUNDING, "counts agree, amounts within the tolerance"
    billed, seen = pair.billed.cached_tokens, pair.seen.cached_tokens
    if billed is not None and seen is not None and (billed - seen) * pair.difference < 0:
        # A cached token is cheaper: more of them must mean less money, else it is a price.
        return VarianceClass.CACHE_SPLIT, f"the same tokens with {billed - seen:+} read from the cache"
    return VarianceClass.PRICE, "the same calls and tokens at another price"


def _pairs(lines: Iterable[Line], calls: Iterable[Recorded]) -> list[Pair]:
    """Bring both sides together: cell by cell, then what is left over through cells of unknown endpoint or key."""
    exact: dict[Cell, Pair] = {}
    for line in lines:
        exact.setdefault(line.cell, Pair(line.cell)).lines.append(line)
    for call in calls:
        exact.setdefault(call.cell, Pair(call.cell)).calls.append(call)
    by_model: defaultdict[tuple[date, str], list[Pair]] = defaultdict(list)
    done: list[Pair] = []
    for pair in exact.values():
        # Only what does not agree on its own is looked for elsewhere: one vague call must not blur the rest.
        if pair.difference == 0 and pair.billed.requests == pair.seen.requests:
            done.append(pair)
        else:
            by_model[(pair.cell.day, pair.cell.model)].append(pair)
    for group in by_model.values():
        done += _join(sorted(group, key=lambda pair: pair.cell))
    return done


def _join(pairs: Sequence[Pair]) -> list[Pair]:
    """Merge pairs of one day and model that may speak of the same calls: those linked by an unknown."""
    group_of = {pair.cell: [pair] for pair in pairs}
    for vague in pairs:
        # Two cells whose endpoint and key are known are linked only if they are one cell, so only the vague ones link.
        if "" not in (vague.cell.endpoint, vague.cell.key_hash):
            continue
        for other in pairs:
            mine, theirs = group_of[vague.cell], group_of[other.cell]
            if mine is not theirs and _linked(vague.cell, other.cell):
                mine += theirs
                group_of.update({pair.cell: mine for pair in theirs})
    groups = {id(group): group for group in group_of.values()}
    return [_merge(group) for group in groups.values()]


def _linked(one: Cell, other: Cell) -> bool:
    endpoint = one.endpoint == other.endpoint or "" in (one.endpoint, other.endpoint)
    key = one.key_hash == other.key_hash or "" in (one.key_hash, other.key_hash)
    return endpoint and key


def _merge(group: Sequence[Pair]) -> Pair:
    if len(group) == 1:
        return group[0]
    first = group[0].cell
    endpoints = {pair.cell.endpoint for pair in group} - {""}
    keys = {pair.cell.key_hash for pair in group} - {""}
    merged = Pair(
        Cell(
            first.day,
            first.model,
            endpoints.pop() if len(endpoints) == 1 else "",
            keys.pop() if len(keys) == 1 else "",
        )
    )
    for pair in group:
        merged.lines += pair.lines
        merged.calls += pair.calls
    return merged


def _counts(counts: Iterable[Counts]) -> Counts:
    total = NOTHING
    for each in counts:
        total = total + each
    return total


def _plain(counts: Counts) -> dict[str, int | None]:
    return {
        "requests": counts.requests,
        "input_tokens": counts.input_tokens,
        "output_tokens": counts.output_tokens,
        "reasoning_tokens": counts.reasoning_tokens,
        "cached_tokens": counts.cached_tokens,
    }


def _calls(count: int) -> str:
    return f"{count} call" if count == 1 else f"{count} calls"


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    """Exact: the default context would round a sum of more than 28 digits."""
    with localcontext() as context:
        context.prec = 60
        return sum(amounts, ZERO)
