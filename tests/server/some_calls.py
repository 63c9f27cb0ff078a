"""Calls for the pages' tests."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from spendwatch.calls import CallStatus, CostBasis, LLMCall, PricedCall, Tags, TokenUsage


def call(number: int, *, cost: str | None = "0.01", ago: timedelta = timedelta(minutes=1), **facts: Any) -> PricedCall:
    """A call that was made some time ago; facts are fields of LLMCall, and `tags` of its tags."""
    tags = Tags(**facts.pop("tags", {}))
    made = LLMCall(
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        started_at=datetime.now(UTC) - ago,
        duration_us=1_234_567,
        provider_name=facts.pop("provider_name", "openai"),
        request_model=facts.pop("request_model", "gpt-5.2"),
        response_id=facts.pop("response_id", f"resp-{number}"),
        usage=TokenUsage(input_tokens=1000, output_tokens=200, cache_read_input_tokens=400),
        status=facts.pop("status", CallStatus.OK),
        tags=tags,
        **facts,
    )
    amount = None if cost is None else Decimal(cost)
    return PricedCall(
        call=made,
        list_cost=None if amount is None else amount * 2,
        routed_cost=None if amount is None else amount + amount / 2,
        effective_cost=amount,
        cost_basis=CostBasis.UNPRICED if amount is None else CostBasis.LISTED,
        price_version=None if amount is None else "test-1",
    )
