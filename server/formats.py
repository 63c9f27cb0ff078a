"""How amounts, counts and durations are written on the pages.

Invariant: an amount is rounded from its Decimal, never by way of a float, and what is unknown is an em dash, not 0.
Where a rounded amount stands, the exact one is its title.
"""

from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from spendwatch import money

UNKNOWN = "—"


def usd(amount: Decimal | None, places: int = 2) -> str:
    """An amount in USD: "$1,234.50"; "<$0.01" when it would round to nothing, "—" when it is unknown."""
    if amount is None:
        return UNKNOWN
    sign = "−" if amount < 0 else ""
    size = abs(amount)
    smallest = Decimal(1).scaleb(-places)
    if 0 < size < smallest:
        return f"{sign}<${smallest}"
    return f"{sign}${size.quantize(smallest, ROUND_HALF_EVEN):,}"


def exact(amount: Decimal | None) -> str:
    """An amount to its last digit, as a plain decimal number; "" when it is unknown."""
    return "" if amount is None else money.text(amount)


def count(number: int | None) -> str:
    """A whole number with thousands set apart."""
    return UNKNOWN if number is None else f"{number:,}"


def short(number: int | None) -> str:
    """A whole number in at most four characters or so: 950, 12.3k, 4.56M."""
    if number is None:
        return UNKNOWN
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(number) >= size:
            scaled = Decimal(number) / size
            digits = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
            return f"{scaled.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)}{unit}"
    return str(number)


def percent(part: Decimal, whole: Decimal) -> str:
    """A share of a whole; "—" of nothing."""
    return UNKNOWN if whole == 0 else f"{(part * 100 / whole).quantize(Decimal('0.1'), ROUND_HALF_EVEN)} %"


def duration(microseconds: int | None) -> str:
    """A duration with a fitting unit: 850 µs, 12.3 ms, 4.56 s, 2 m 05 s."""
    if microseconds is None:
        return UNKNOWN
    if microseconds < 1000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{Decimal(microseconds) / 1000:.1f} ms"
    if microseconds < 60_000_000:
        return f"{Decimal(microseconds) / 1_000_000:.2f} s"
    minutes, seconds = divmod(microseconds // 1_000_000, 60)
    return f"{minutes} m {seconds:02d} s"


def when(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return UNKNOWN if time is None else time.strftime("%Y-%m-%d %H:%M:%S")


def ago(time: datetime, now: datetime) -> str:
    """How long ago: "just now", "12 minutes ago"."""
    passed = max(now - time, timedelta(0))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        number = int(passed.total_seconds()) // size
        if number:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
