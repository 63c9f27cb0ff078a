"""Calls for these tests: plain ones by number, and hypothesis strategies for any call that an observer may send."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from spendwatch.calls import (
    CallStatus,
    CostBasis,
    Fingerprint,
    LLMCall,
    PricedCall,
    Tags,
    TokenUsage,
    ToolFingerprint,
    Window,
)

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RECEIVED = datetime(2026, 11, 20, 18, 0, tzinfo=UTC)
MONTH = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
SETTLED_AT = Decimal("0.0042")


def a_call(number: int = 1, *, cost: str | None = "0.0021344", **facts: Any) -> PricedCall:
    """An OpenRouter call with a reported cost; facts override fields of the LLMCall."""
    plain: dict[str, Any] = {
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "started_at": NOON + timedelta(seconds=number),
        "duration_us": 1_500_000,
        "provider_name": "openrouter",
        "serving_provider": "OpenAI",
        "request_model": "openai/gpt-5-mini",
        "response_model": "openai/gpt-5-mini",
        "response_id": f"gen-{number}",
        "usage": TokenUsage(input_tokens=1000, output_tokens=100, cache_read_input_tokens=400),
        "reported_cost": None if cost is None else Decimal(cost),
        "cost_basis": CostBasis.UNPRICED if cost is None else CostBasis.REPORTED,
        "http_status": 200,
        "finish_reasons": ("stop",),
        "tags": Tags(team="search", project="acme", agent="crawler", session="s-1"),
        "key_hash": "ab" * 32,
    }
    call = LLMCall(**plain | facts)
    return PricedCall(
        call=call,
        list_cost=None if cost is None else Decimal(cost) * 2,
        effective_cost=call.reported_cost,
        cost_basis=call.cost_basis,
        price_version="2026-11-01",
    )


def settled(call: PricedCall, cost: Decimal = SETTLED_AT) -> PricedCall:
    """The same call after the provider was asked what it cost."""
    return replace(call, effective_cost=cost, cost_basis=CostBasis.SETTLED, revision=call.revision + 1)


def total(calls: Sequence[PricedCall]) -> Decimal:
    """The known costs, summed."""
    return sum((call.effective_cost for call in calls if call.effective_cost is not None), Decimal(0))


_word = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
_maybe_word = st.none() | _word
_tokens = st.none() | st.integers(0, 2**32 - 1)
_usd = st.none() | st.decimals(0, 100_000, places=12)
_hash = st.none() | st.integers(1, 2**64 - 1).map("{:016x}".format)
_labels = st.dictionaries(_word, _word, max_size=2)

usages = st.builds(TokenUsage, **{field.name: _tokens for field in fields(TokenUsage)})
tools = st.builds(
    ToolFingerprint,
    name=st.sampled_from(["", "search", "read:file"]),
    arguments=_hash.map(lambda found: found or "0" * 16),
    arguments_simhash=_hash.map(lambda found: found or "0" * 16),
)
fingerprints = st.builds(
    Fingerprint,
    **dict.fromkeys(
        ("system", "prefix", "last", "last_simhash", "last_normalised", "response", "response_simhash"), _hash
    ),
    **dict.fromkeys(("last_length", "messages", "response_length"), _tokens),
    last_role=_maybe_word,
    last_is_error=st.none() | st.booleans(),
    tools=st.lists(tools, max_size=3).map(tuple),
)
tags = st.builds(
    Tags,
    **dict.fromkeys(("team", "project", "agent", "session", "user", "feature", "environment"), _maybe_word),
    extra=_labels,
)
llm_calls = st.builds(
    LLMCall,
    trace_id=st.integers(1, 2**128 - 1).map("{:032x}".format),
    span_id=st.integers(1, 2**64 - 1).map("{:016x}".format),
    parent_span_id=_hash,
    started_at=st.integers(0, 90 * 86400 * 10**6).map(lambda us: MONTH.start + timedelta(microseconds=us)),
    duration_us=st.integers(0, 2**40),
    time_to_first_chunk_us=st.none() | st.integers(0, 2**40),
    provider_name=st.sampled_from(["openrouter", "openai", "anthropic"]),
    serving_provider=_maybe_word,
    operation_name=st.sampled_from(["chat", "embeddings"]),
    request_model=_maybe_word,
    response_model=_maybe_word,
    response_id=_maybe_word,
    server_address=_maybe_word,
    server_port=st.none() | st.integers(1, 65535),
    usage=usages,
    reported_cost=_usd,
    upstream_cost=_usd,
    listed_cost=_usd,
    price_version=_maybe_word,
    is_byok=st.none() | st.booleans(),
    service_tier=_maybe_word,
    status=st.sampled_from(CallStatus),
    http_status=st.none() | st.integers(100, 599),
    error_type=_maybe_word,
    finish_reasons=st.lists(st.sampled_from(["stop", "length", "tool_calls"]), max_size=2).map(tuple),
    streamed=st.booleans(),
    service_name=_maybe_word,
    tags=tags,
    key_hash=_hash,
    fingerprint=st.none() | fingerprints,
    wire_format=_maybe_word,
    attributes=_labels,
    source=st.sampled_from(["sdk", "otlp:openllmetry", "otlp:openinference", "broadcast", "csv"]),
)
priced_calls = st.builds(
    PricedCall,
    call=llm_calls,
    list_cost=_usd,
    routed_cost=_usd,
    effective_cost=_usd,
    cost_basis=st.sampled_from(CostBasis),
    price_version=_maybe_word,
    revision=st.integers(0, 3),
)
