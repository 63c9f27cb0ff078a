"""From the address of the calls' page to what is asked of ClickHouse."""

from datetime import UTC, datetime, timedelta

import pytest

from server.pages.filters import read_filter

NOW = datetime(2026, 11, 24, 15, 30, tzinfo=UTC)


def test_without_filters_the_last_day_is_listed() -> None:
    found = read_filter({}, NOW)
    assert (found.window.start, found.window.end) == (NOW - timedelta(days=1), NOW)
    assert found.scope == {}


@pytest.mark.parametrize(
    ("chosen", "start"),
    [
        ("hour", datetime(2026, 11, 24, 14, 30, tzinfo=UTC)),
        ("today", datetime(2026, 11, 24, tzinfo=UTC)),
        ("month", datetime(2026, 11, 1, tzinfo=UTC)),
        ("week", datetime(2026, 11, 17, 15, 30, tzinfo=UTC)),
    ],
)
def test_each_range_has_its_window(chosen: str, start: datetime) -> None:
    assert read_filter({"range": chosen}, NOW).window.start == start


def test_a_window_can_be_typed() -> None:
    found = read_filter({"range": "between", "from": "2026-11-20T08:00", "to": "2026-11-21"}, NOW)
    assert found.window.start == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert found.window.end == datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        {"range": "yesterday"},
        {"range": "between", "from": "noon"},
        {"range": "between", "from": "2026-13-01T00:00"},
        {"range": "between", "from": "2026-11-20T08:00", "to": "2026-11-20T08:00"},
    ],
)
def test_what_is_not_understood_is_said_and_lists_nothing(query: dict[str, str]) -> None:
    found = read_filter(query, NOW)
    assert "expected" in found.problem
    assert found.window.start == found.window.end


def test_filters_become_a_scope() -> None:
    found = read_filter({"team": "search", "model": "gpt-5.2", "basis": "unpriced", "agent": "  "}, NOW)
    assert found.scope == {"team": ["search"], "request_model": ["gpt-5.2"], "cost_basis": ["unpriced"]}
