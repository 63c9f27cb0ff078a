"""One LLMCall in few words."""

from datetime import UTC, datetime
from typing import Any

import pytest

from spendwatch.calls import LLMCall, TokenUsage

TOKENS = set(TokenUsage.__dataclass_fields__)


def make_call(model: str | None, provider: str = "openai", **facts: Any) -> LLMCall:
    usage = TokenUsage(**{name: facts.pop(name) for name in list(facts) if name in TOKENS})
    return LLMCall(
        trace_id="0" * 32,
        span_id="0" * 16,
        started_at=facts.pop("at", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        duration_us=1,
        provider_name=provider,
        request_model=model,
        usage=usage,
        **facts,
    )


@pytest.fixture
def call() -> Any:
    return make_call
