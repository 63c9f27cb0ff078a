"""Reconciling neither makes nor loses a cent, and classes a difference only where the counts speak for it."""

import random
from dataclasses import replace
from datetime import date
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.reconcile import Cell, Counts, Line, Recorded, Tolerance, VarianceClass, reconcile

DAY = date(2026, 11, 20)
CELL = Cell(DAY, "openai/gpt-4.1-mini", "openai", "k1")
SEEN = Recorded(
    cell=CELL,
    cost=Decimal("1.25"),
    counts=Counts(requests=10, input_tokens=1000, output_tokens=200, reasoning_tokens=0, cached_tokens=400),
)
AGREED = Line(cell=CELL, usage=SEEN.cost, counts=SEEN.counts)


def counts(**changes: int | None) -> Counts:
    return replace(SEEN.counts, **changes)  # type: ignore[arg-type]


def test_the_same_call_on_both_sides_leaves_no_variance() -> None:
    found = reconcile([AGREED], [SEEN])
    assert found.variances == ()
    assert (found.statement, found.recorded, found.cells, found.agreed) == (SEEN.cost, SEEN.cost, 1, 1)


# class, line, recorded, amount
CASES: list[tuple[str, Line | None, Recorded | None, str]] = [
    ("unobserved", AGREED, None, "1.25"),
    (
        "unobserved",
        replace(AGREED, usage=Decimal("1.5"), counts=counts(requests=11, input_tokens=1200, output_tokens=210)),
        SEEN,
        "0.25",
    ),
    ("unbilled", None, SEEN, "-1.25"),
    (
        "unbilled",
        replace(AGREED, usage=Decimal("1.2"), counts=counts(requests=9, input_tokens=950, output_tokens=190)),
        SEEN,
        "-0.05",
    ),
    ("price", replace(AGREED, usage=Decimal("1.5")), SEEN, "0.25"),
    ("price", replace(AGREED, usage=Decimal("1.24")), SEEN, "-0.01"),
    ("tokens", replace(AGREED, usage=Decimal("1.3"), counts=counts(output_tokens=250)), SEEN, "0.05"),
    ("tokens", replace(AGREED, usage=Decimal("1.2"), counts=counts(input_tokens=900)), SEEN, "-0.05"),
    ("cache_split", replace(AGREED, usage=Decimal("1.3"), counts=counts(cached_tokens=300)), SEEN, "0.05"),
    ("price", replace(AGREED, usage=Decimal("1.3"), counts=counts(cached_tokens=500)), SEEN, "0.05"),
    ("price", replace(AGREED, usage=Decimal("1.3"), counts=counts(cached_tokens=None)), SEEN, "0.05"),
    ("byok", replace(AGREED, usage=Decimal("0.0625"), byok=Decimal("1.25")), SEEN, "0.0625"),
    ("byok", replace(AGREED, usage=Decimal("0.1"), byok=Decimal("1")), SEEN, "-0.15"),
    ("rounding", replace(AGREED, usage=Decimal("1.250004")), SEEN, "0.000004"),
    ("rounding", replace(AGREED, usage=Decimal("1.245")), SEEN, "-0.005"),
    # A cheap call that nobody saw is not a rounding, however small beside the rest.
    (
        "unobserved",
        replace(AGREED, usage=Decimal("1.25001"), counts=counts(requests=11, input_tokens=1010)),
        SEEN,
        "0.00001",
    ),
    (
        "late",
        replace(AGREED, usage=Decimal("1.5"), counts=counts(input_tokens=1200)),
        replace(SEEN, unpriced=1),
        "0.25",
    ),
    # More requests for less money, more tokens for less money: the counts don't say why.
    ("unexplained", replace(AGREED, usage=Decimal("1.2"), counts=counts(requests=11)), SEEN, "-0.05"),
    ("unexplained", replace(AGREED, usage=Decimal("1.2"), counts=counts(input_tokens=1100)), SEEN, "-0.05"),
    (
        "unexplained",
        replace(AGREED, usage=Decimal("1.3"), counts=counts(input_tokens=1100, output_tokens=100)),
        SEEN,
        "0.05",
    ),
    # Unsettled calls and unseen ones in the same cell can't be told apart by counting.
    (
        "unexplained",
        replace(AGREED, usage=Decimal("1.5"), counts=counts(requests=12, input_tokens=1200)),
        replace(SEEN, unpriced=1),
        "0.25",
    ),
]


@pytest.mark.parametrize(("expected", "line", "recorded", "amount"), CASES)
def test_a_difference_gets_the_class_that_the_counts_speak_for(
    expected: str, line: Line | None, recorded: Recorded | None, amount: str
) -> None:
    found = reconcile([line] if line else [], [recorded] if recorded else [])
    assert [(v.variance_class, v.amount, v.cell) for v in found.variances] == [(expected, Decimal(amount), CELL)]
    assert found.variances[0].evidence["reason"]


def test_half_a_cent_is_the_most_a_rounding_can_be() -> None:
    large = replace(SEEN, cost=Decimal(1000))
    found = reconcile([replace(AGREED, usage=Decimal("1000.006"))], [large])
    assert found.variances[0].variance_class == VarianceClass.PRICE
    assert Tolerance().of(Decimal(1000)) == Decimal("0.005")


def test_a_call_whose_endpoint_is_not_known_is_found_in_the_statement_of_the_one_that_served() -> None:
    vague = replace(
        SEEN, cell=replace(CELL, endpoint=""), cost=Decimal("0.5"), counts=counts(requests=1, input_tokens=100)
    )
    both = replace(AGREED, usage=Decimal("1.75"), counts=SEEN.counts + vague.counts)
    assert reconcile([both], [SEEN, vague]).variances == ()


def test_one_vague_call_does_not_blur_the_cells_that_agree() -> None:
    other = Cell(DAY, CELL.model, "azure", "k1")
    vague = replace(SEEN, cell=replace(CELL, endpoint=""))
    found = reconcile([AGREED, replace(AGREED, cell=other)], [SEEN, vague])
    assert found.variances == ()
    assert found.cells == 2
    unbilled = reconcile([AGREED], [SEEN, vague])
    assert [(v.variance_class, v.cell.endpoint) for v in unbilled.variances] == [("unbilled", "")]


def test_spend_of_no_listed_key_is_matched_with_a_key_that_is_listed_no_more() -> None:
    assert reconcile([replace(AGREED, cell=replace(CELL, key_hash=""))], [SEEN]).variances == ()


def test_two_keys_of_one_model_are_never_mixed() -> None:
    other = replace(CELL, key_hash="k2")
    found = reconcile([AGREED], [replace(SEEN, cell=other)])
    assert {(v.cell.key_hash, v.variance_class, v.amount) for v in found.variances} == {
        ("k1", "unobserved", Decimal("1.25")),
        ("k2", "unbilled", Decimal("-1.25")),
    }


cells = st.builds(
    Cell,
    day=st.sampled_from([DAY, date(2026, 11, 21)]),
    model=st.sampled_from(["a", "b"]),
    endpoint=st.sampled_from(["", "x", "y"]),
    key_hash=st.sampled_from(["", "k1", "k2"]),
)
amounts = st.decimals(min_value=0, max_value=100_000, places=12)
some_counts = st.builds(
    Counts,
    requests=st.integers(0, 5),
    input_tokens=st.integers(0, 10**9),
    output_tokens=st.integers(0, 10**9),
    reasoning_tokens=st.integers(0, 10**9),
    cached_tokens=st.none() | st.integers(0, 10**9),
)
some_lines = st.lists(st.builds(Line, cell=cells, usage=amounts, byok=amounts, counts=some_counts), max_size=12)
some_calls = st.lists(
    st.builds(Recorded, cell=cells, cost=amounts, byok=amounts, counts=some_counts, unpriced=st.integers(0, 3)),
    max_size=12,
)


@given(some_lines, some_calls, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_reconciling_neither_makes_nor_loses_a_cent_in_any_order(
    lines: list[Line], calls: list[Recorded], shuffle: random.Random
) -> None:
    found = reconcile(lines, calls)
    with localcontext() as context:
        context.prec = 60
        statement = sum((line.usage + line.byok for line in lines), Decimal(0))
        recorded = sum((call.cost for call in calls), Decimal(0))
        assert sum((v.amount for v in found.variances), Decimal(0)) == statement - recorded == found.variance
    assert (found.statement, found.recorded) == (statement, recorded)
    shuffle.shuffle(lines)
    shuffle.shuffle(calls)
    assert reconcile(lines, calls) == found
