"""Each question gets its answer, and reads no more than it must."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from spendwatch.calls import DIMENSIONS, CallStatus, Fingerprint, PricedCall, Tags, TokenUsage, Window, call_id
from spendwatch.clickhouse import hourly, queries, rollup, rows
from spendwatch.clickhouse.client import Connection
from tests.clickhouse.builders import MONTH, NOON, RECEIVED, a_call, settled, total

DAY = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))


def insert(ch: Connection, *calls: PricedCall) -> list[PricedCall]:
    rows.insert(ch, calls, received_at=RECEIVED)
    return list(calls)


def tagged(number: int, **tags: str) -> PricedCall:
    return a_call(number, tags=Tags(project="acme", **tags))


def test_spend_counts_what_is_known_and_names_what_is_not(clickhouse: Connection) -> None:
    sent = insert(clickhouse, a_call(1), a_call(2), a_call(3, cost=None), a_call(4, cost="0", usage=TokenUsage()))
    spend = queries.spend(clickhouse, {}, MONTH)
    assert spend == queries.Spend(
        cost=total(sent), list_cost=Decimal("0.0085376"), calls=4, input_tokens=3000, output_tokens=300,
        cache_read_input_tokens=1200, unpriced_calls=1,
    )  # fmt: skip


def test_nothing_spent_is_zero(clickhouse: Connection) -> None:
    assert queries.spend(clickhouse, {}, MONTH) == queries.Spend(
        cost=Decimal(0), list_cost=Decimal(0), calls=0, input_tokens=0, output_tokens=0,
        cache_read_input_tokens=0, unpriced_calls=0,
    )  # fmt: skip
    assert queries.spend_by(clickhouse, ["team"], {}, MONTH) == []


def test_every_dimension_filters_and_groups(clickhouse: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    full = a_call(
        1, cost="0.5", service_name="api", operation_name="embeddings", status=CallStatus.ERROR,
        provider_name="anthropic", serving_provider="Bedrock", request_model="claude", response_model="claude-4",
        tags=Tags(environment="prod", team="ads", project="p", agent="a", feature="f", user="u", session="s"),
    )  # fmt: skip
    other = replace(a_call(2, key_hash="cd" * 32, tags=Tags()), cost_basis=settled(full).cost_basis)
    insert(clickhouse, full, other)
    rollup.roll(clickhouse)
    for dimension in DIMENSIONS:
        by = {row.key[0]: row.spend for row in queries.spend_by(clickhouse, [dimension], {}, MONTH)}
        assert len(by) == 2, dimension
        for value, spend in by.items():
            assert queries.spend(clickhouse, {dimension: [value]}, MONTH) == spend
        assert queries.spend(clickhouse, {dimension: [*by, "nobody"]}, MONTH).calls == 2


def test_a_scope_needs_all_its_dimensions_and_any_of_their_values(clickhouse: Connection) -> None:
    insert(
        clickhouse,
        tagged(1, team="search", agent="crawler"),
        tagged(2, team="search", agent="writer"),
        tagged(3, team="ads", agent="crawler"),
    )
    assert queries.spend(clickhouse, {"team": ["search", "ads"], "agent": ["crawler"]}, MONTH).calls == 2


def test_an_unknown_dimension_is_refused_before_any_sql(clickhouse: Connection) -> None:
    for wrong in ({"1=1 --": ["x"]}, {"team": "search"}):
        with pytest.raises(ValueError, match=r"dimension|list of text"):
            queries.spend(clickhouse, wrong, MONTH)
    with pytest.raises(ValueError, match="'tokens' is not a dimension"):
        queries.spend_by(clickhouse, ["tokens"], {}, MONTH)
    with pytest.raises(ValueError, match="not a dimension"):
        queries.distinct(clickhouse, "call_id", MONTH)


def test_values_with_quotes_and_backslashes_are_only_values(clickhouse: Connection) -> None:
    nasty = "a' OR 1=1 --\\'\t{x}"
    insert(clickhouse, tagged(1, team=nasty), tagged(2, team="search"))
    assert queries.spend(clickhouse, {"team": [nasty]}, MONTH).calls == 1
    assert [row.key for row in queries.spend_by(clickhouse, ["team"], {"team": [nasty]}, MONTH)] == [(nasty,)]
    assert queries.calls_page(clickhouse, {}, MONTH, page=1, page_size=9, search=nasty).total == 1


def test_groups_come_dearest_first_and_no_more_than_asked_for(clickhouse: Connection) -> None:
    insert(clickhouse, *(tagged(number, team=f"t{number % 3}") for number in range(1, 9)))
    found = queries.spend_by(clickhouse, ["team"], {}, MONTH, limit=2)
    assert [(row.key, row.spend.calls) for row in found] == [(("t1",), 3), (("t2",), 3)]


def test_a_series_has_a_point_for_each_hour_or_day_with_calls(clickhouse: Connection) -> None:
    insert(
        clickhouse,
        tagged(1, team="a"),
        a_call(2, started_at=NOON + timedelta(hours=2), tags=Tags(team="b")),
        a_call(3, started_at=NOON + timedelta(days=2), tags=Tags(team="a")),
    )
    hours = queries.spend_series(clickhouse, {}, MONTH, step="hour")
    assert [point.start for point in hours] == [NOON, NOON + timedelta(hours=2), NOON + timedelta(days=2)]
    days = queries.spend_series(clickhouse, {}, MONTH, step=queries.Step.DAY, by="team")
    assert [(point.start.date().day, point.key, point.calls) for point in days] == [
        (20, "a", 1),
        (20, "b", 1),
        (22, "a", 1),
    ]
    assert sum(point.cost for point in days) == queries.spend(clickhouse, {}, MONTH).cost
    with pytest.raises(ValueError, match="'week'"):
        queries.spend_series(clickhouse, {}, MONTH, step="week")


def test_pages_hold_every_call_once_newest_first(clickhouse: Connection) -> None:
    insert(clickhouse, *(a_call(number) for number in range(1, 8)))
    pages = [queries.calls_page(clickhouse, {}, MONTH, page=page, page_size=3) for page in (1, 2, 3, 4)]
    assert [page.total for page in pages] == [7, 7, 7, 7]
    ids = [call.call.response_id for page in pages for call in page.calls]
    assert ids == [f"gen-{number}" for number in range(7, 0, -1)]
    with pytest.raises(ValueError, match="page 0"):
        queries.calls_page(clickhouse, {}, MONTH, page=0, page_size=3)


@pytest.mark.parametrize("text", ["gen-2", f"{2:032x}", f"{2:016x}", "s-2", "CLAUDE", "writer", "Timeout"])
def test_a_search_finds_ids_whole_and_names_in_part(clickhouse: Connection, text: str) -> None:
    sought = a_call(
        2, tags=Tags(session="s-2", agent="the-writer"), request_model="anthropic/claude-x", error_type="ReadTimeout"
    )
    insert(clickhouse, a_call(1), sought)
    (found,) = queries.calls_page(clickhouse, {}, MONTH, page=1, page_size=5, search=text).calls
    assert found.call.response_id == "gen-2"
    (same,) = queries.calls_page(clickhouse, {}, MONTH, page=1, page_size=5, search=str(found.call_id)).calls
    assert same == found


def test_a_call_is_found_by_its_identity_alone(clickhouse: Connection) -> None:
    (sent,) = insert(clickhouse, a_call(1))
    stored = queries.call(clickhouse, call_id(sent.call))
    assert stored is not None
    assert (stored.call_id, stored.call.response_id) == (call_id(sent.call), "gen-1")
    assert queries.call(clickhouse, 12345) is None


def test_distinct_values_come_most_frequent_first(clickhouse: Connection) -> None:
    insert(clickhouse, tagged(1, team="a"), tagged(2, team="b"), tagged(3, team="b"), tagged(4))
    assert queries.distinct(clickhouse, "team", MONTH) == ["b", "a"]
    assert queries.distinct(clickhouse, "team", MONTH, limit=1) == ["b"]


def test_usage_cells_sum_a_day_a_model_an_endpoint_and_a_key(clickhouse: Connection) -> None:
    usage = TokenUsage(input_tokens=10, output_tokens=8, reasoning_output_tokens=3, cache_read_input_tokens=4)
    sent = insert(
        clickhouse,
        a_call(1, usage=usage, upstream_cost=Decimal("0.001"), is_byok=True),
        a_call(2, usage=usage, status=CallStatus.ABORTED, cost=None, response_model=None),
        a_call(3, serving_provider="Azure"),
        a_call(4, started_at=NOON + timedelta(days=1)),
        a_call(5, provider_name="openai"),
    )
    cells = queries.usage_cells(clickhouse, MONTH)
    assert [(cell.day, cell.model, cell.endpoint, cell.calls) for cell in cells] == [
        (date(2026, 11, 20), "openai/gpt-5-mini", "Azure", 1),
        (date(2026, 11, 20), "openai/gpt-5-mini", "OpenAI", 2),
        (date(2026, 11, 21), "openai/gpt-5-mini", "OpenAI", 1),
    ]
    cell = cells[1]
    assert (cell.cost, cell.upstream_cost, cell.key_hash) == (total(sent[:1]), Decimal("0.001"), "ab" * 32)
    assert (cell.input_tokens, cell.output_tokens, cell.reasoning_output_tokens, cell.cache_read_input_tokens) == (
        20,
        16,
        6,
        8,
    )
    assert (cell.byok_calls, cell.unpriced_calls, cell.aborted_calls, cell.error_calls) == (1, 1, 1, 0)
    inside = queries.cell_calls(clickhouse, cell.day, cell.model, cell.endpoint, cell.key_hash, limit=9)
    assert {call.call.response_id for call in inside} == {"gen-1", "gen-2"}


def test_calls_received_come_by_their_start_whenever_that_was(clickhouse: Connection) -> None:
    old = a_call(1, started_at=NOON - timedelta(days=9))
    rows.insert(clickhouse, [a_call(2), old], received_at=RECEIVED)
    rows.insert(clickhouse, [a_call(3)], received_at=RECEIVED + timedelta(seconds=5))
    found = queries.calls_received(clickhouse, RECEIVED, RECEIVED + timedelta(seconds=5), limit=9)
    assert [call.call.response_id for call in found] == ["gen-1", "gen-2"]
    assert queries.calls_received(clickhouse, RECEIVED - timedelta(days=1), RECEIVED, limit=9) == []


def test_unsettled_are_aborted_or_unpriced_calls_that_can_be_asked_for(clickhouse: Connection) -> None:
    insert(
        clickhouse,
        a_call(1),
        a_call(2, cost=None),
        a_call(3, status=CallStatus.ABORTED),
        a_call(4, cost=None, response_id=None),
        a_call(5, cost=None, provider_name="openai"),
        settled(a_call(6, cost=None)),
    )
    found = queries.unsettled(clickhouse, "openrouter", MONTH, limit=9)
    assert [call.call.response_id for call in found] == ["gen-2", "gen-3"]


class Watched(Connection):
    """A connection that remembers what it asked."""

    def __init__(self, real: Connection) -> None:
        super().__init__(real._client, real._dsn, real.caller)
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    def query(self, name: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        self.asked.append((name, sql, parameters or {}))
        return super().query(name, sql, parameters)


def granules(ch: Connection, sql: str, parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Of llm_calls: the granules that a statement reads, and all of them."""
    plan = [str(line) for (line,) in ch.query("explain", f"EXPLAIN indexes = 1 {sql}", parameters)]
    read = every = 0
    inside = False
    left: list[tuple[int, int]] = []
    for line in [*plan, "ReadFromMergeTree (end)"]:
        if "ReadFromMergeTree" in line:
            if inside and left:
                read, every = read + left[-1][0], every + left[0][1]
            inside, left = "llm_calls)" in line, []
        elif found := re.search(r"Granules: (\d+)/(\d+)", line):
            left.append((int(found[1]), int(found[2])))
    return read, every


@pytest.fixture
def ten_days(clickhouse: Connection) -> Connection:
    """240 hours of 1,000 calls each, in one part."""
    started = "toDateTime64('2026-11-01 00:00:00', 6, 'UTC') + toIntervalMillisecond(number * 3600)"
    clickhouse.command(
        "fill",
        "INSERT INTO llm_calls (call_id, started_at, received_at, project, team, session_id, provider_name, source, "
        f"cost_basis, status, response_id) SELECT sipHash64(number), {started}, {started}, 'acme', "
        "concat('team-', toString(number % 7)), concat('s-', toString(intDiv(number, 10))), "
        "'openrouter', 'sdk', 'unpriced', 'ok', concat('gen-', toString(number)) FROM numbers(240000)",
    )
    clickhouse.command("merge_parts", "OPTIMIZE TABLE llm_calls FINAL")
    return clickhouse


HOUR = Window(datetime(2026, 11, 5, 7, tzinfo=UTC), datetime(2026, 11, 5, 8, tzinfo=UTC))


QUESTIONS: dict[str, Callable[[Connection], object]] = {
    "spend": lambda ch: queries.spend(ch, {}, HOUR),
    "spend of a team": lambda ch: queries.spend(ch, {"team": ["team-1"]}, HOUR),
    "spend by user": lambda ch: queries.spend_by(ch, ["user_id"], {}, HOUR),
    "page": lambda ch: queries.calls_page(ch, {}, HOUR, page=1, page_size=50),
    "page searched": lambda ch: queries.calls_page(ch, {}, HOUR, page=1, page_size=50, search="team-1"),
    "page of a session": lambda ch: queries.calls_page(ch, {"session_id": ["s-1"]}, HOUR, page=2, page_size=50),
    "series": lambda ch: queries.spend_series(ch, {}, HOUR, step="hour", by="team"),
    "distinct": lambda ch: queries.distinct(ch, "team", HOUR),
    "cells": lambda ch: queries.usage_cells(ch, HOUR),
    "unsettled": lambda ch: queries.unsettled(ch, "openrouter", HOUR, limit=9),
    "received": lambda ch: queries.calls_received(ch, HOUR.start, HOUR.end, limit=9),
    "lookup": lambda ch: rows.find(ch, [1, 2, 3], [HOUR.start]),
}


def test_a_question_about_an_hour_reads_that_hour(ten_days: Connection) -> None:
    for what, question in QUESTIONS.items():
        watched = Watched(ten_days)
        question(watched)
        about_calls = [asked for asked in watched.asked if "FROM llm_calls " in asked[1]]
        assert about_calls, what
        for name, sql, parameters in about_calls:
            read, every = granules(ten_days, sql, parameters)
            assert every >= 29, f"{what}: {name} does not read llm_calls"
            assert read <= 3, f"{what}: {name} reads {read} of {every} granules"


TEN_DAYS = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 11, tzinfo=UTC))
# What the sums of days and hours answer, and the page whose hours they tell.
ROLLED_UP: dict[str, Callable[[Connection], object]] = {
    "spend": lambda ch: queries.spend(ch, {}, TEN_DAYS),
    "budget": lambda ch: queries.spend(ch, {"team": ["team-1"]}, TEN_DAYS),
    "by team": lambda ch: queries.spend_by(ch, ["team", "request_model"], {}, TEN_DAYS),
    "days": lambda ch: queries.spend_series(ch, {}, TEN_DAYS, step="day"),
    "hours": lambda ch: queries.spend_series(ch, {}, TEN_DAYS, step="hour"),
    "page 1": lambda ch: queries.calls_page(ch, {}, TEN_DAYS, page=1, page_size=50),
    "page 2000": lambda ch: queries.calls_page(ch, {}, TEN_DAYS, page=2000, page_size=50),
}


def test_once_rolled_up_a_question_about_days_reads_next_to_no_calls(
    ten_days: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    rollup.roll(ten_days)
    for what, question in ROLLED_UP.items():
        watched = Watched(ten_days)
        question(watched)
        assert any("llm_calls_daily" in sql or "llm_calls_hourly" in sql for _, sql, _ in watched.asked), what
        for name, sql, parameters in watched.asked:
            if "FROM llm_calls " in sql:
                read, every = granules(ten_days, sql, parameters)
                assert read <= 3 < every, f"{what}: {name} reads {read} of {every} granules"


def test_a_call_is_found_by_the_index_of_its_identity(ten_days: Connection) -> None:
    watched = Watched(ten_days)
    ((wanted,),) = ten_days.query("one", "SELECT call_id FROM llm_calls WHERE started_at = {at:DateTime64(6, 'UTC')}",
                                  {"at": "2026-11-05 07:00:00"})  # fmt: skip
    assert queries.call(watched, wanted) is not None
    for _, sql, parameters in watched.asked:
        assert granules(ten_days, sql, parameters)[0] <= 2


def test_every_statement_names_its_caller_and_its_question(clickhouse: Connection) -> None:
    assert clickhouse.query("who", "SELECT getSetting('log_comment')") == [("tests/who",)]


def test_fingerprints_reach_the_loop_detector(clickhouse: Connection) -> None:
    print_ = Fingerprint(last="00000000000000aa", last_normalised="00000000000000bb", messages=12, response_length=0)
    insert(clickhouse, a_call(1, fingerprint=print_))
    (found,) = queries.calls_received(clickhouse, RECEIVED, RECEIVED + timedelta(seconds=1), limit=5)
    assert found.call.fingerprint == print_
