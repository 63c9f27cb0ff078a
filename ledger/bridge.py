"""The bridge between usage statements and credits: what the days add up to, against what the account says it used.

At 00:00 UTC of a day an account had used `used - used_today`, whenever on that day it was asked. From one such moment
to the next, the statement's lines must add up to the growth. Pure; amounts are exact USD.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext


@dataclass(frozen=True, slots=True, kw_only=True)
class Pier:
    """One day on which the account was asked."""

    day: date
    used_before: Decimal
    """Used until 00:00 UTC of that day, as the account says."""
    stated_before: Decimal
    """The statement's lines of all days before it."""
    opening: Decimal
    """Used before the earliest line: what the first pier can't account for."""

    @property
    def difference(self) -> Decimal:
        """Used minus stated, beyond the opening, USD: 0 where the bridge holds."""
        with localcontext() as context:
            context.prec = 60
            return self.used_before - self.opening - self.stated_before


def bridge(used_before: Mapping[date, Decimal], usage: Iterable[tuple[date, Decimal]]) -> list[Pier]:
    """One pier for each day asked, in order. used_before: USD used until 00:00 of a day; usage: a line's day and USD.

    The first pier sets the opening, so it always holds; the following ones are the proof.
    """
    lines = sorted(usage)
    piers: list[Pier] = []
    opening: Decimal | None = None
    with localcontext() as context:
        context.prec = 60
        for day, used in sorted(used_before.items()):
            stated = sum((amount for stated_day, amount in lines if stated_day < day), Decimal(0))
            opening = used - stated if opening is None else opening
            piers.append(Pier(day=day, used_before=used, stated_before=stated, opening=opening))
    return piers
