"""What an account used from midnight to midnight is what its statement's days add up to."""

from datetime import date
from decimal import Decimal

from ledger.bridge import bridge


def day(number: int) -> date:
    return date(2026, 11, number)


def test_the_first_day_asked_sets_the_opening_and_the_next_ones_must_hold() -> None:
    used = {day(20): Decimal("105"), day(21): Decimal("108.5"), day(23): Decimal("110")}
    usage = [(day(19), Decimal(5)), (day(20), Decimal("3.5")), (day(21), Decimal(1)), (day(22), Decimal("0.4"))]
    piers = bridge(used, usage)
    assert [(pier.day, pier.opening, pier.difference) for pier in piers] == [
        (day(20), Decimal(100), Decimal(0)),
        (day(21), Decimal(100), Decimal(0)),
        (day(23), Decimal(100), Decimal("0.1")),
    ]


def test_an_account_never_asked_has_no_pier() -> None:
    assert bridge({}, [(day(19), Decimal(5))]) == []
