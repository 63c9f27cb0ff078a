"""The budget rule: windows and thresholds."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules.budget import Period, Terms, calmed, judge, window

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def terms(period: Period = Period.MONTH, time_zone: str = "UTC", hours: int | None = None) -> Terms:
    return Terms(
        amount=Decimal(500), period=period, hours=hours, time_zone=time_zone, thresholds=(50, 80, 100)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spent", "crossed"),
    [
        ("249.999999999999", None),
        ("250", (50,)),
        ("399.99", (50,)),
        ("400", (50, 80)),
        ("600", (50, 80, 100)),
        ("0", None),
    ],
)
def test_a_threshold_is_crossed_when_it_is_reached_to_the_last_digit(
    spent: str, crossed: tuple[int, ...] | None
) -> None:
    breach = judge(terms(), Decimal(spent), NOW)
    assert (breach.crossed if breach else None) == crossed


def test_a_breach_says_by_how_much() -> None:
    breach = judge(terms(), Decimal("412.10"), NOW)
    assert breach is not None
    assert breach.percent == Decimal("82.42")
    assert breach.tightest == 80


@pytest.mark.parametrize(
    ("period", "zone", "now", "start", "end"),
    [
        (Period.MONTH, "UTC", "2026-11-20T12:00", "2026-11-01T00:00", "2026-12-01T00:00"),
        (Period.MONTH, "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        (Period.MONTH, "America/Los_Angeles", "2026-12-01T07:59", "2026-11-01T07:00", "2026-12-01T08:00"),
        (Period.MONTH, "America/Los_Angeles", "2026-12-01T08:00", "2026-12-01T08:00", "2027-01-01T08:00"),
        (Period.MONTH, "Asia/Kolkata", "2026-10-31T18:30", "2026-10-31T18:30", "2026-11-30T18:30"),
        (Period.DAY, "Europe/Berlin", "2026-03-29T10:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        (Period.DAY, "Europe/Berlin", "2026-10-25T10:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        (Period.DAY, "Africa/Cairo", "2026-04-24T05:00", "2026-04-23T22:00", "2026-04-24T21:00"),
        (Period.DAY, "America/Havana", "2026-11-01T12:00", "2026-11-01T04:00", "2026-11-02T05:00"),
        (Period.WEEK, "UTC", "2026-11-22T23:00", "2026-11-16T00:00", "2026-11-23T00:00"),
        (Period.WEEK, "Europe/Berlin", "2026-10-25T23:30", "2026-10-25T23:00", "2026-11-01T23:00"),
    ],
)
def test_calendar_windows_follow_the_clocks_of_their_time_zone(
    period: Period, zone: str, now: str, start: str, end: str
) -> None:
    found = window(terms(period, zone), datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert (f"{found.start:%Y-%m-%dT%H:%M}", f"{found.end:%Y-%m-%dT%H:%M}") == (start, end)


ZONES = ["UTC", "Europe/Berlin", "Africa/Cairo", "America/Havana", "Asia/Kolkata", "Pacific/Apia", "America/Asuncion"]


@given(
    now=st.integers(0, 32 * 365 * 86_400).map(lambda s: datetime(2005, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    zone=st.sampled_from(ZONES),
    period=st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]),
)
def test_calendar_windows_meet_without_gap_or_overlap(now: datetime, zone: str, period: Period) -> None:
    here = window(terms(period, zone), now)
    assert here.start <= now < here.end
    assert window(terms(period, zone), here.end).start == here.end
    assert window(terms(period, zone), here.end - timedelta(microseconds=1)) == here
    assert here.start.astimezone(ZoneInfo(zone)).date() <= now.astimezone(ZoneInfo(zone)).date()


def test_a_rolling_window_ends_now() -> None:
    found = window(terms(Period.ROLLING, hours=6), NOW)
    assert (found.start, found.end) == (NOW - timedelta(hours=6), NOW)


def test_a_rolling_breach_is_over_only_well_below_the_lowest_threshold() -> None:
    rolling = terms(Period.ROLLING, hours=6)
    assert not calmed(rolling, Decimal("249"))
    assert not calmed(rolling, Decimal("225"))
    assert calmed(rolling, Decimal("224.99"))
