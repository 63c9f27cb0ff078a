"""Calls made up for tests that don't need a provider."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from spendwatch.calls import CostBasis, LLMCall, TokenUsage


def make_call(n: int = 1, **changed: Any) -> LLMCall:
    """The n-th call: ids differ, figures are fixed."""
    values: dict[str, Any] = {
        "trace_id": f"{n:032x}",
        "span_id": f"{n:016x}",
        "started_at": datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC),
        "duration_us": 1_234_567,
        "provider_name": "openai",
        "request_model": "gpt-4o-mini",
        "response_id": f"chatcmpl-{n}",
        "usage": TokenUsage(input_tokens=1231, output_tokens=47),
        "reported_cost": Decimal("0.0021344"),
        "cost_basis": CostBasis.REPORTED,
    }
    return LLMCall(**{**values, **changed})
