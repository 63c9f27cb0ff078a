"""One call seen several times: which observer's word counts for each fact.

merge(a, b) is commutative, merging a call with itself changes nothing, and a fact that one of them knows is never lost.
A better cost basis beats a worse one (settled, reported, listed, unpriced); for every other fact the better observer is
asked first and the other one fills what it doesn't know. Nothing is ever added up. Pure.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from spendwatch.calls import CallStatus, CostBasis, LLMCall, PricedCall, Tags, TokenUsage

T = TypeVar("T")

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
    kind = {"sdk": 4, "broadcast": 3, "otlp:genai": 2, "csv": 0}.get(source, 1)
    return kind, call.revision, source


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
    costed = max((best, other), key=lambda call: _BASIS_RANK[call.cost_basis])  # best, where they are equal
    uncosted = other if costed is best else best
    merged = PricedCall(
        call=_merge_call(best.call, other.call),
        list_cost=_known(best.list_cost, other.list_cost),
        routed_cost=_known(best.routed_cost, other.routed_cost),
        effective_cost=_known(costed.effective_cost, uncosted.effective_cost),
        cost_basis=costed.cost_basis,
        price_version=_known(costed.price_version, uncosted.price_version),
        revision=max(a.revision, b.revision),
    )
    return merged if not tied or merged in (a, b) else replace(merged, revision=merged.revision + 1)


def _merge_call(best: LLMCall, other: LLMCall) -> LLMCall:
    facts: dict[str, Any] = {
        field.name: _known(getattr(best, field.name), getattr(other, field.name))
        for field in fields(LLMCall)
        if field.name not in _TOGETHER and field.name not in _BY_PART
    }
    if best.status is CallStatus.OK and other.status is not CallStatus.OK:
        facts["error_type"] = best.error_type  # What went wrong around the call is not what went wrong with it.
    # A list price stands with the version of the book it comes from.
    listing = best if best.listed_cost is not None or other.listed_cost is None else other
    if facts["reported_cost"] is not None:
        basis = CostBasis.REPORTED
    else:
        basis = CostBasis.UNPRICED if listing.listed_cost is None else CostBasis.LISTED
    return replace(
        best,
        **facts,
        usage=TokenUsage(**_each_known(best.usage, other.usage)),
        tags=Tags(**_each_known(best.tags, other.tags) | {"extra": _union(best.tags.extra, other.tags.extra)}),
        attributes=_union(best.attributes, other.attributes),
        finish_reasons=best.finish_reasons or other.finish_reasons,
        listed_cost=listing.listed_cost,
        price_version=_known(listing.price_version, best.price_version, other.price_version),
        cost_basis=basis,
    )


def _known(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _each_known(best: TokenUsage | Tags, other: TokenUsage | Tags) -> dict[str, Any]:
    names = [field.name for field in fields(best)]
    return {name: _known(getattr(best, name), getattr(other, name)) for name in names}


def _union(best: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    return {**other, **best}
