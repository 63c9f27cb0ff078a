"""The filters of the list of calls: from the address of the page to a window, a scope and a text to search for.

What can't be understood is said next to the filters and filters nothing out silently: the list is empty then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.utils.dateparse import parse_datetime

from spendwatch.calls import CallStatus, CostBasis, Window

RANGES: dict[str, str] = {
    "hour": "Last hour",
    "today": "Today (UTC)",
    "day": "Last 24 hours",
    "week": "Last 7 days",
    "month": "This month (UTC)",
    "quarter": "Last 90 days",
    "between": "Between …",
}
LENGTHS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "quarter": timedelta(days=90),
}

CHOICES: dict[str, tuple[str, str]] = {
    "team": ("Team", "team"),
    "project": ("Project", "project"),
    "agent": ("Agent", "agent"),
    "model": ("Model", "request_model"),
    "provider": ("Provider", "provider_name"),
    "status": ("Status", "status"),
    "basis": ("Cost basis", "cost_basis"),
}
"""Filters with a list to choose from: name in the address -> label, dimension of spend."""

TEXTS: dict[str, tuple[str, str]] = {"session": ("Session", "session_id"), "key": ("Key (SHA-256)", "key_hash")}
"""Filters to type an exact value into."""

FIXED: dict[str, tuple[str, ...]] = {
    "status": tuple(CallStatus),
    "basis": tuple(CostBasis),
}


@dataclass(frozen=True, slots=True)
class CallFilter:
    """What to list. `given` holds the filters as they were in the address; `problem` what could not be understood."""

    window: Window
    scope: dict[str, list[str]]
    search: str
    given: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def read_filter(query: Mapping[str, str], now: datetime) -> CallFilter:
    """The filter that an address asks for; without one, the last 24 hours."""
    names = ("range", "from", "to", "search", *CHOICES, *TEXTS)
    given = {name: query[name].strip() for name in names if query.get(name, "").strip()}
    scope = {dimension: [given[name]] for name, (_, dimension) in {**CHOICES, **TEXTS}.items() if name in given}
    window, problem = _window(given, now)
    return CallFilter(window, scope, given.get("search", ""), {"range": "day", **given}, problem)


def _window(given: Mapping[str, str], now: datetime) -> tuple[Window, str]:
    chosen = given.get("range", "day")
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if chosen in LENGTHS:
        return Window(now - LENGTHS[chosen], now), ""
    if chosen == "today":
        return Window(midnight, now), ""
    if chosen == "month":
        return Window(midnight.replace(day=1), now), ""
    nothing = Window(now, now)
    if chosen != "between":
        return nothing, f"expected a range out of {', '.join(RANGES)}, found “{chosen}”."
    times = {}
    for name in ("from", "to"):
        times[name] = _time(given.get(name, ""))
        if times[name] is None and given.get(name):
            return nothing, f"expected {name} as a time such as 2026-11-24T09:30 (UTC), found “{given[name]}”."
    start, end = times["from"] or now - LENGTHS["day"], times["to"] or now
    if start >= end:
        return nothing, f"expected “from” before “to”, found {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}."
    return Window(start, end), ""


def _time(text: str) -> datetime | None:
    try:
        found = parse_datetime(text if "T" in text or " " in text else f"{text}T00:00")
    except ValueError:
        return None
    if found is None:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
