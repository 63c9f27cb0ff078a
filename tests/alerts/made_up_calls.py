"""Calls that nobody made, for the store."""

import itertools
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from spendwatch.calls import CostBasis, Fingerprint, LLMCall, PricedCall, Tags, TokenUsage, ToolFingerprint

_serial = itertools.count(1)


def priced(at: datetime, usd: str | None, *, fingerprint: Fingerprint | None = None, **tags: Any) -> PricedCall:
    """A call that started at `at` and cost `usd` USD; each has an identity of its own."""
    number = next(_serial)
    cost = None if usd is None else Decimal(usd)
    call = LLMCall(
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        started_at=at,
        duration_us=900_000,
        provider_name="openrouter",
        request_model="openai/gpt-5-mini",
        response_id=f"gen-{number}-{at.timestamp()}",
        usage=TokenUsage(input_tokens=1000, output_tokens=10),
        reported_cost=cost,
        cost_basis=CostBasis.UNPRICED if cost is None else CostBasis.REPORTED,
        service_name="shop",
        tags=Tags(**tags),
        fingerprint=fingerprint,
    )
    basis = CostBasis.UNPRICED if cost is None else CostBasis.REPORTED
    return PricedCall(call=call, effective_cost=cost, cost_basis=basis)


def runaway(start: datetime, turns: int, *, usd: str = "0.07", **tags: Any) -> list[PricedCall]:
    """An agent that asks the same tool the same thing, and reads the same result, every ten seconds."""
    calls = []
    for turn in range(turns):
        seen = Fingerprint(
            system="00000000000000aa",
            last="00000000000000bb" if turn else "00000000000000cc",
            last_normalised="00000000000000bb" if turn else "00000000000000cc",
            last_simhash="00ff00ff00ff00ff" if turn else "ff00ff00ff00ff00",
            last_role="tool" if turn else "user",
            last_length=120,
            last_is_error=False,
            messages=2 + 2 * turn,
            tools=(ToolFingerprint(name="search", arguments="00000000000000a1", arguments_simhash="00000000000000a2"),),
        )
        calls.append(priced(start + timedelta(seconds=10 * turn), usd, fingerprint=seen, **tags))
    return calls
