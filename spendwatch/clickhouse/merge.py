"""One call seen several times: which observer's word counts for each fact.

merge(a, b) is commutative, merging a call with itself changes nothing, and a fact that one of them knows is never lost.
A better cost basis beats a worse one (settled, reported, listed, unpriced); for every other fact the better observer is
asked first and the other one fills what it doesn't know. What a lesser observer filled in is noted (SAID_BY), so that a
better one that comes later is believed all the same: the result does not depend on the order in which several come.
Nothing is ever added up. Pure.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from spendwatch.calls import CallStatus, CostBasis, LLMCall, PricedCall, Tags, TokenUsage

T = TypeVar("T")

SAID_BY = "said_by"
"""The attribute that tells which facts of a call are the word of another observer than its source: fact=observer,..."""

_KINDS = {"sdk": 4, "broadcast": 3, "otlp:genai": 2, "csv": 0}
_USUAL_KIND = 1
_NEED_NO_NOTE = 3
"""Above what this kind of observer filled in there is only the one into whose call it was filled."""

_BASIS_RANK = {basis: rank for rank, basis in enumerate(CostBasis)}

# Facts of one observation that make sense only together: they come from the better observer as a whole.
_TOGETHER = frozenset({
    "trace_id", "span_id", "parent_span_id", "started_at", "duration_us", "time_to_first_chunk_us",
    "provider_name", "operation_name", "status", "streamed", "source", "cost_basis",
})  # fmt: skip
_BY_PART = frozenset({"usage", "tags", "attributes", "finish_reasons", "listed_cost", "price_version"})


def rank(call: PricedCall) -> tuple[int, int, str]:
    """How far to trust an observation. Higher is better.

    Our SDK saw the bytes; OpenRouter's Broadcast comes from who made them but knows no tags of ours; a provider's own
    SDK writes OpenTelemetry's words, other instrumentations translate into them (some add up what a stream says twice);
    a CSV is a summary. Of one observer's versions the later revision is the better one.
    """
    source = call.call.source
    return _KINDS.get(source, _USUAL_KIND), call.revision, source


def merge(a: PricedCall, b: PricedCall) -> PricedCall:
    """The one call that two observations of it make.

    Its revision is the higher of theirs; one more when they contradict each other and neither is to be preferred, so
    that the choice made now is not made again.
    """
    tied = rank(a) == rank(b)
    if tied:
        # Some fixed order, so that (a, b) and (b, a) agree.
        best, other = sorted((a, b), key=repr, reverse=True)
    else:
        best, other = sorted((a, b), key=rank, reverse=True)
    pick = _Pick(best.call, other.call)
    costs = {name: pick(name, getattr(best, name), getattr(other, name)) for name in ("list_cost", "routed_cost")}
    costed = pick.costed(best, other)
    uncosted = other if costed is best else best
    merged = PricedCall(
        call=_merge_call(best.call, other.call, pick),
        **costs,
        effective_cost=_known(costed.effective_cost, uncosted.effective_cost),
        cost_basis=costed.cost_basis,
        price_version=_known(costed.price_version, uncosted.price_version),
        revision=max(a.revision, b.revision),
    )
    return merged if not tied or merged in (a, b) else replace(merged, revision=merged.revision + 1)


class _Pick:
    """Chooses between what two observations say of one fact, and notes whose word it was."""

    def __init__(self, best: LLMCall, other: LLMCall) -> None:
        self._best, self._other = best, other
        self._said = _said_by(best), _said_by(other)
        self._notes: dict[str, str] = {}

    def __call__(self, name: str, mine: T | None, theirs: T | None) -> T | None:
        """The word of the better observer, where it has one."""
        my_source, their_source = self._sources(name)
        if mine is None or (theirs is not None and _kind(their_source) > _kind(my_source)):
            mine, my_source = theirs, their_source
        if mine is not None:
            self._note(name, my_source)
        return mine

    def costed(self, best: PricedCall, other: PricedCall) -> PricedCall:
        """The one whose effective cost counts: by its basis, then by who said it."""
        mine, theirs = self._sources("effective_cost")
        key = _BASIS_RANK[best.cost_basis], _kind(mine)
        chosen = best if key >= (_BASIS_RANK[other.cost_basis], _kind(theirs)) else other
        if chosen.effective_cost is not None:
            self._note("effective_cost", mine if chosen is best else theirs)
        return chosen

    def attributes(self) -> dict[str, str]:
        """Both sides' attributes, and the notes."""
        out = _union(self._best.attributes, self._other.attributes)
        out.pop(SAID_BY, None)
        if self._notes:
            out[SAID_BY] = ",".join(f"{name}={source}" for name, source in sorted(self._notes.items()))
        return out

    def _sources(self, name: str) -> tuple[str, str]:
        mine, theirs = self._said
        return mine.get(name, self._best.source), theirs.get(name, self._other.source)

    def _note(self, name: str, source: str) -> None:
        if source != self._best.source and _kind(source) < _NEED_NO_NOTE:
            self._notes[name] = source


def _kind(source: str) -> int:
    return _KINDS.get(source, _USUAL_KIND)


def _said_by(call: LLMCall) -> dict[str, str]:
    noted = call.attributes.get(SAID_BY)
    if not noted:
        return {}
    return {name: source for name, _, source in (note.partition("=") for note in noted.split(","))}


def _merge_call(best: LLMCall, other: LLMCall, pick: _Pick) -> LLMCall:
    if best.status is CallStatus.OK and other.status is not CallStatus.OK:
        # What went wrong around the call is not what went wrong with it.
        other = replace(other, error_type=best.error_type)
    facts: dict[str, Any] = {
        field.name: pick(field.name, getattr(best, field.name), getattr(other, field.name))
        for field in fields(LLMCall)
        if field.name not in _TOGETHER and field.name not in _BY_PART
    }
    # A list price stands with the version of the book it comes from.
    listing = best if best.listed_cost is not None or other.listed_cost is None else other
    if facts["reported_cost"] is not None:
        basis = CostBasis.REPORTED
    else:
        basis = CostBasis.UNPRICED if listing.listed_cost is None else CostBasis.LISTED
    return replace(
        best,
        **facts,
        usage=TokenUsage(**_each_known(best.usage, other.usage, pick)),
        tags=Tags(**_each_known(best.tags, other.tags, pick) | {"extra": _union(best.tags.extra, other.tags.extra)}),
        attributes=pick.attributes(),
        finish_reasons=best.finish_reasons or other.finish_reasons,
        listed_cost=listing.listed_cost,
        price_version=_known(listing.price_version, best.price_version, other.price_version),
        cost_basis=basis,
    )


def _known(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _each_known(best: TokenUsage | Tags, other: TokenUsage | Tags, pick: _Pick) -> dict[str, Any]:
    names = [field.name for field in fields(best) if field.name != "extra"]
    return {name: pick(name, getattr(best, name), getattr(other, name)) for name in names}


def _union(best: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    return {**other, **best}
