"""Naming the calls that were not billed never changes what the cell's differences add up to."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from ledger.evidence import split_unbilled
from ledger.reconcile import Cell, Counts, Line, Recorded, Variance, reconcile
from spendwatch.calls import LLMCall, TokenUsage
from spendwatch.clickhouse.stored import StoredCall

CELL = Cell(date(2026, 11, 20), "m", "openai", "k")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def call(number: int, input_tokens: int, output_tokens: int, cost: str | None) -> StoredCall:
    seen = LLMCall(
        trace_id="0" * 32,
        span_id=f"{number:016x}",
        started_at=NOW,
        duration_us=1,
        provider_name="openrouter",
        response_id=f"gen-{number}",
        usage=TokenUsage(input_tokens=input_tokens, output_tokens=output_tokens),
    )
    return StoredCall(
        call=seen, effective_cost=Decimal(cost) if cost else None, call_id=number, project="", received_at=NOW
    )


CALLS = [call(1, 100, 10, "0.1"), call(2, 200, 20, "0.2"), call(3, 300, 30, "0.3"), call(4, 300, 30, "0.3")]


def variance(requests: int, tokens: tuple[int, int], usage: str) -> Variance:
    recorded = Recorded(cell=CELL, cost=Decimal("0.9"), counts=Counts(requests=4, input_tokens=900, output_tokens=90))
    counts = Counts(requests=requests, input_tokens=tokens[0], output_tokens=tokens[1])
    (found,) = reconcile([Line(cell=CELL, usage=Decimal(usage), counts=counts)], [recorded]).variances
    return found


@pytest.mark.parametrize(
    ("requests", "tokens", "usage", "parts"),
    [
        (3, (800, 80), "0.8", [("unbilled", "-0.1", ["gen-1"])]),
        # Two calls that are alike: either is the one, the amount is the same.
        (3, (600, 60), "0.6", [("unbilled", "-0.3", ["gen-3"])]),
        (2, (600, 60), "0.6", [("unbilled", "-0.3", ["gen-1", "gen-2"])]),
        (3, (800, 80), "0.799999", [("unbilled", "-0.1", ["gen-1"]), ("rounding", "-0.000001", None)]),
        (3, (800, 80), "0.85", [("unbilled", "-0.1", ["gen-1"]), ("price", "0.05", None)]),
        (3, (700, 80), "0.7", [("unbilled", "-0.2", None)]),
        (1, (300, 30), "0.3", [("unbilled", "-0.6", None)]),
    ],
)
def test_calls_whose_tokens_make_the_difference_are_named(
    requests: int, tokens: tuple[int, int], usage: str, parts: list[tuple[str, str, list[str] | None]]
) -> None:
    whole = variance(requests, tokens, usage)
    found = split_unbilled(whole, CALLS)
    assert [
        (part.variance_class, part.amount, [c["response_id"] for c in part.evidence["calls"]] if named else None)
        for part, (_, _, named) in zip(found, parts, strict=True)
    ] == [(kind, Decimal(amount), named) for kind, amount, named in parts]
    assert sum(part.amount for part in found) == whole.amount


def test_calls_that_would_cost_different_amounts_are_not_guessed_at() -> None:
    calls = [
        CALLS[0],
        replace(CALLS[0], call=replace(CALLS[0].call, response_id="gen-9"), effective_cost=Decimal("0.05")),
    ]
    whole = variance(3, (800, 80), "0.8")
    assert split_unbilled(whole, calls) == [whole]
