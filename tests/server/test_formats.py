"""How amounts and counts are written."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from server import formats


@pytest.mark.parametrize(
    ("amount", "places", "text"),
    [
        ("0", 2, "$0.00"),
        ("1234.5", 2, "$1,234.50"),
        ("0.004", 2, "<$0.01"),
        ("0.0042131", 6, "$0.004213"),
        ("-3.005", 2, "−$3.00"),
        ("-0.001", 2, "−<$0.01"),
        # A float would show ...68 here.
        ("12345678901234567.89", 2, "$12,345,678,901,234,567.89"),
    ],
)
def test_amounts_are_rounded_from_their_decimal(amount: str, places: int, text: str) -> None:
    assert formats.usd(Decimal(amount), places) == text


def test_an_unknown_amount_is_not_zero() -> None:
    assert formats.usd(None) == "—"
    assert formats.exact(None) == ""


def test_the_exact_amount_keeps_every_digit() -> None:
    assert formats.exact(Decimal("0.000000000001")) == "0.000000000001"


@pytest.mark.parametrize(
    ("number", "text"), [(None, "—"), (950, "950"), (12_345, "12.3k"), (4_561_000, "4.56M"), (123_456_789, "123M")]
)
def test_big_numbers_are_shortened(number: int | None, text: str) -> None:
    assert formats.short(number) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(None, "—"), (850, "850 µs"), (12_340, "12.3 ms"), (4_560_000, "4.56 s"), (125_000_000, "2 m 05 s")],
)
def test_durations_have_a_fitting_unit(microseconds: int | None, text: str) -> None:
    assert formats.duration(microseconds) == text


def test_ages_are_told_in_the_largest_unit() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert formats.ago(now, now) == "just now"
    assert formats.ago(now - timedelta(minutes=1), now) == "1 minute ago"
    assert formats.ago(now - timedelta(hours=49), now) == "2 days ago"
