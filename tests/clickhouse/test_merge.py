"""Which observer's word counts when one call was seen several times."""

from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from functools import reduce
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendwatch.calls import CallStatus, CostBasis, LLMCall, PricedCall, Tags, TokenUsage
from spendwatch.clickhouse.rows import merge
from spendwatch.clickhouse.stored import normalise
from tests.clickhouse.builders import NOON, a_call, priced_calls, settled


def broadcast(number: int = 1, **facts: Any) -> PricedCall:
    """The same generation as OpenRouter tells of it: other trace, other clock, no tags."""
    seen = {"source": "broadcast", "trace_id": "f" * 32, "started_at": NOON + timedelta(seconds=2), "tags": Tags()}
    return a_call(number, **seen | facts)


def test_what_one_observer_does_not_know_the_other_fills() -> None:
    ours = a_call(cost=None, usage=TokenUsage(), status=CallStatus.ABORTED, finish_reasons=())
    theirs = broadcast(upstream_cost=Decimal("0.002"))
    merged = merge(ours, theirs)
    assert merged.call.usage == theirs.call.usage
    assert merged.call.upstream_cost == Decimal("0.002")
    assert merged.call.finish_reasons == ("stop",)
    assert merged.effective_cost == theirs.effective_cost
    assert merged.cost_basis is merged.call.cost_basis is CostBasis.REPORTED


def test_our_sdk_is_believed_before_broadcast_and_broadcast_before_other_instrumentations() -> None:
    ours, theirs = a_call(status=CallStatus.ABORTED), broadcast()
    other = a_call(source="otlp:openllmetry", usage=TokenUsage(input_tokens=7, reasoning_output_tokens=5))
    assert merge(theirs, ours).call.status is CallStatus.ABORTED
    assert merge(theirs, ours).call.trace_id == ours.call.trace_id
    assert merge(theirs, ours).call.source == "sdk"
    assert merge(other, theirs).call.usage == replace(theirs.call.usage, reasoning_output_tokens=5)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (CostBasis.UNPRICED, CostBasis.LISTED),
        (CostBasis.UNPRICED, CostBasis.SETTLED),
        (CostBasis.LISTED, CostBasis.REPORTED),
        (CostBasis.REPORTED, CostBasis.SETTLED),
    ],
)
def test_the_better_cost_basis_wins_whoever_brings_it(worse: CostBasis, better: CostBasis) -> None:
    cheap = replace(a_call(), effective_cost=Decimal("0.001"), cost_basis=worse, price_version="v1")
    sure = replace(broadcast(), effective_cost=Decimal("0.002"), cost_basis=better, price_version="v2")
    for merged in (merge(cheap, sure), merge(sure, cheap)):
        assert (merged.effective_cost, merged.cost_basis, merged.price_version) == (Decimal("0.002"), better, "v2")


def test_a_later_revision_of_the_same_observer_wins() -> None:
    first = a_call()
    edited = replace(first, call=replace(first.call, tags=Tags(team="ads")), revision=2)
    merged = merge(edited, first)
    assert merged.call.tags.team == "ads"
    assert merged.call.tags.agent == "crawler"
    assert merged.revision == 2


def test_a_settled_cost_survives_a_late_resend() -> None:
    first = a_call()
    assert merge(first, settled(first)) == merge(settled(first), first) == settled(first)


def test_what_went_wrong_around_a_call_is_not_the_calls_error() -> None:
    ours = replace(a_call(), call=replace(a_call().call, status=CallStatus.OK, error_type=None))
    theirs = replace(ours.call, source="otlp:openllmetry", status=CallStatus.ERROR, error_type="timeout")
    merged = merge(ours, replace(ours, call=theirs))
    assert (merged.call.status, merged.call.error_type) == (CallStatus.OK, None)
    assert merged == ours  # And nothing notes whose word an error is that the call does not have.


def test_tags_and_attributes_are_united_by_name() -> None:
    ours = a_call(tags=Tags(team="search", extra={"run": "1"}), attributes={"a": "ours"})
    theirs = broadcast(tags=Tags(user="u", extra={"run": "2", "tier": "gold"}), attributes={"a": "theirs", "b": "2"})
    merged = merge(theirs, ours).call
    assert merged.tags == Tags(team="search", user="u", extra={"run": "1", "tier": "gold"})
    assert merged.attributes == {"a": "ours", "b": "2"}


def test_who_comes_first_does_not_decide_what_the_best_observer_left_open() -> None:
    nothing = {"usage": TokenUsage(), "cost": None, "tags": Tags(team="search")}
    ours = a_call(**nothing, status=CallStatus.ABORTED)
    sure = broadcast(usage=TokenUsage(input_tokens=10, output_tokens=5), tags=Tags(user="of broadcast"))
    own = a_call(
        source="otlp:genai", usage=TokenUsage(input_tokens=11, cache_read_input_tokens=3), tags=Tags(user="own")
    )
    other = a_call(source="otlp:x", usage=TokenUsage(reasoning_output_tokens=2, cache_read_input_tokens=4), tags=Tags())
    summary = a_call(
        source="csv",
        usage=TokenUsage(input_tokens=12, output_tokens=6, reasoning_output_tokens=1, input_audio_tokens=1),
        tags=Tags(user="of the summary", session="s"),
    )
    for order in permutations((ours, sure, own, other, summary)):
        merged = reduce(merge, order).call
        assert merged.usage == TokenUsage(
            input_tokens=10, output_tokens=5, cache_read_input_tokens=3, reasoning_output_tokens=2, input_audio_tokens=1
        )
        assert (merged.tags.user, merged.tags.session, merged.tags.team) == ("of broadcast", "s", "search")
        noted = "cache_read_input_tokens=otlp:genai,input_audio_tokens=csv,reasoning_output_tokens=otlp:x,session=csv"
        assert merged.attributes["said_by"] == noted


@settings(max_examples=20, deadline=None)
@given(priced_calls.map(normalise), priced_calls.map(normalise))
def test_merging_does_not_depend_on_the_order(a: PricedCall, b: PricedCall) -> None:
    assert merge(a, b) == merge(b, a)


@settings(max_examples=20, deadline=None)
@given(priced_calls.map(normalise), priced_calls.map(normalise))
def test_merging_again_what_is_merged_changes_nothing(a: PricedCall, b: PricedCall) -> None:
    merged = merge(a, b)
    assert merge(a, a) == a
    assert merge(merged, a) == merge(merged, b) == merged


@settings(max_examples=20, deadline=None)
@given(st.lists(priced_calls.map(normalise), min_size=2, max_size=4))
def test_nothing_known_is_lost_and_nothing_is_added_up(calls: list[PricedCall]) -> None:
    merged = calls[0]
    for call in calls[1:]:
        merged = merge(merged, call)
    for name in [field.name for field in fields(TokenUsage)]:
        known = {getattr(call.call.usage, name) for call in calls} - {None}
        assert getattr(merged.call.usage, name) in (known or {None})
    for name in ("reported_cost", "upstream_cost", "response_model", "key_hash", "is_byok"):
        known = {getattr(call.call, name) for call in calls} - {None}
        assert getattr(merged.call, name) in (known or {None})
    assert merged.cost_basis == max((call.cost_basis for call in calls), key=list(CostBasis).index)


def test_every_fact_of_a_call_is_merged_by_some_rule() -> None:
    full = a_call(
        server_address="openrouter.ai", server_port=443, is_byok=False, service_tier="flex",
        service_name="api", wire_format="openai_chat", price_version="v", listed_cost=Decimal(1), error_type="x",
    )  # fmt: skip
    empty = PricedCall(
        call=LLMCall(trace_id="e" * 32, span_id="e" * 16, started_at=NOON, duration_us=0, provider_name="openrouter",
                     response_id="gen-1", source="csv"),
    )  # fmt: skip
    assert merge(empty, full) == merge(full, empty) == full
