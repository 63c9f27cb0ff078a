"""The bridge of each account, from the balances and the lines that stand."""

from collections.abc import Iterator
from datetime import UTC, date
from decimal import Decimal

from ledger.bridge import Pier, bridge
from ledger.models import Balance, StatementLine


def piers(source: str) -> Iterator[tuple[str, Pier]]:
    """Account and pier, by account and day: one for each day on which the account was asked.

    A day asked several times counts once: the first time, when least of the day's use can be in flight.
    """
    used_before: dict[str, dict[date, Decimal]] = {}
    for balance in Balance.objects.filter(source=source).order_by("account", "taken_at"):
        day = balance.taken_at.astimezone(UTC).date()
        used_before.setdefault(balance.account, {}).setdefault(day, balance.used - balance.used_today)
    for account, asked in used_before.items():
        lines = StatementLine.objects.filter(source=source, account=account).current()
        for pier in bridge(asked, lines.values_list("day", "usage")):
            yield account, pier
