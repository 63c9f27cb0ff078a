"""The budget rule: which thresholds a spend has crossed in the window that `now` lies in.

Pure: no database, no clock, Decimal only. Invariant: windows of a calendar period meet without gap or overlap, in any
time zone, also when clocks change. Never here: whether somebody was told already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from spendwatch.calls import Window

CALM = Decimal("0.9")
"""A rolling budget's breach is over when the spend is below this part of its lowest threshold. Right at the threshold
it would come and go with every call that leaves the window."""


class Period(StrEnum):
    """How a budget's time is cut: calendar periods in its time zone, or the last `hours` hours at any moment."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ROLLING = "rolling"

    @property
    def label(self) -> str:
        """As people say it."""
        return {"day": "calendar day", "week": "calendar week (from Monday)", "month": "calendar month"}.get(
            self.value, "rolling hours"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a budget says. amount: USD. thresholds: percent of it, ascending."""

    amount: Decimal
    period: Period
    hours: int | None = None
    time_zone: str = "UTC"
    thresholds: Sequence[int] = (100,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """Thresholds crossed. percent: of the amount, exact; crossed: ascending, never empty."""

    window: Window
    spent: Decimal
    amount: Decimal
    percent: Decimal
    crossed: tuple[int, ...]

    @property
    def tightest(self) -> int:
        """The highest threshold crossed."""
        return self.crossed[-1]


def window(terms: Terms, now: datetime) -> Window:
    """The window that `now` lies in; a rolling one ends at `now`. Raises ValueError for a rolling one without hours."""
    if terms.period is Period.ROLLING:
        if not terms.hours:
            raise ValueError(f"a rolling budget needs its hours, found {terms.hours!r}")
        return Window(now - timedelta(hours=terms.hours), now)
    today = now.astimezone(ZoneInfo(terms.time_zone)).date()
    match terms.period:
        case Period.DAY:
            first, after = today, today + timedelta(days=1)
        case Period.WEEK:
            first = today - timedelta(days=today.weekday())
            after = first + timedelta(days=7)
        case _:
            first = today.replace(day=1)
            after = (first + timedelta(days=32)).replace(day=1)
    return Window(_midnight(first, terms.time_zone), _midnight(after, terms.time_zone))


def _midnight(day: date, time_zone: str) -> datetime:
    """When a day begins there. Where clocks skip midnight it is the moment they do; where it comes twice, the first."""
    return datetime.combine(day, time(), ZoneInfo(time_zone)).astimezone(UTC)


def judge(terms: Terms, spent: Decimal, now: datetime) -> Breach | None:
    """What `spent` USD in the current window means; None when no threshold is crossed."""
    crossed = tuple(t for t in sorted(terms.thresholds) if spent * 100 >= t * terms.amount)
    if not crossed:
        return None
    percent = spent * 100 / terms.amount
    return Breach(window=window(terms, now), spent=spent, amount=terms.amount, percent=percent, crossed=crossed)


def calmed(terms: Terms, spent: Decimal) -> bool:
    """Whether a rolling budget's breach is over."""
    return spent * 100 < min(terms.thresholds) * terms.amount * CALM
