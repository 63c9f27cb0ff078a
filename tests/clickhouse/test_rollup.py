"""The hourly sums agree with the calls to the last digit, whatever happened to them and whenever the roller ran."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spendwatch.calls import PricedCall, Tags, TokenUsage, Window, call_id
from spendwatch.clickhouse import hourly, queries, rollup, rows
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.merge import merge
from tests.clickhouse.builders import MONTH, NOON, RECEIVED, a_call, settled, total
from tests.fixtures.clickhouse import TABLES


@pytest.fixture
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No insert of these tests is still on its way when the roller looks, so no hour has to wait."""
    monkeypatch.setattr(hourly, "SETTLING_S", 0)


def spread(count: int) -> list[PricedCall]:
    """Calls of several hours, teams and models."""
    return [
        a_call(
            number,
            started_at=NOON + timedelta(minutes=17 * number),
            request_model=f"model-{number % 3}",
            tags=Tags(team=f"team-{number % 4}", project="acme", user=f"user-{number % 5}"),
        )
        for number in range(1, count + 1)
    ]


def forget_calls(ch: Connection) -> None:
    """Leave only the rollup to answer."""
    ch.command("empty", "TRUNCATE TABLE llm_calls")


@pytest.mark.usefixtures("settled_at_once")
def test_a_settled_hour_is_answered_by_the_rollup_alone(clickhouse: Connection) -> None:
    sent = spread(40)
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    before = queries.spend_by(clickhouse, ["team", "request_model"], {}, MONTH)
    result = rollup.roll(clickhouse)
    assert result.hours == len({rows.hour_of(call.call.started_at) for call in sent})
    forget_calls(clickhouse)
    assert queries.spend(clickhouse, {}, MONTH).cost == total(sent)
    assert queries.spend_by(clickhouse, ["team", "request_model"], {}, MONTH) == before


@pytest.mark.usefixtures("settled_at_once")
def test_rolling_again_without_news_does_nothing(clickhouse: Connection) -> None:
    rows.insert(clickhouse, spread(5), received_at=RECEIVED)
    rollup.roll(clickhouse)
    assert rollup.roll(clickhouse).hours == 0


@pytest.mark.usefixtures("settled_at_once")
def test_only_the_hours_that_changed_are_rebuilt(clickhouse: Connection) -> None:
    sent = spread(40)
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    rollup.roll(clickhouse)
    rows.insert(clickhouse, [settled(sent[7])], received_at=RECEIVED)
    assert rollup.roll(clickhouse).hours == 1
    expected = total(sent) - total([sent[7]]) + total([settled(sent[7])])
    assert queries.spend(clickhouse, {}, MONTH).cost == expected


def test_an_hour_still_settling_is_read_from_the_calls_and_its_rollup_may_expire(clickhouse: Connection) -> None:
    rows.insert(clickhouse, spread(3), received_at=RECEIVED)
    rollup.roll(clickhouse)
    flags = clickhouse.query("flags", "SELECT DISTINCT provisional FROM llm_calls_hourly")
    assert flags == [(1,)]
    # Written behind the roller's back, in an hour it has just rebuilt: the answer holds it all the same.
    late = a_call(99, started_at=NOON + timedelta(minutes=18))
    rows.insert(clickhouse, [late], received_at=RECEIVED)
    assert queries.spend(clickhouse, {}, MONTH).calls == 4


def test_what_was_rolled_up_but_not_committed_counts_for_nothing(clickhouse: Connection) -> None:
    sent = spread(10)
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    rollup.roll(clickhouse)
    hours = sorted({rows.hour_of(call.call.started_at) for call in sent})
    rollup._rebuild(clickhouse, hours, 2**63, provisional=False)  # and here the roller died
    assert queries.spend(clickhouse, {}, MONTH).cost == total(sent)
    newest = clickhouse.query("newest", "SELECT sum(calls), sum(effective_cost) FROM llm_calls_hourly_newest")
    assert newest == [(10, total(sent))]


def test_a_call_that_two_processes_stored_at_once_is_made_one(clickhouse: Connection) -> None:
    ours = a_call(1)
    theirs = a_call(
        1, source="broadcast", started_at=NOON + timedelta(hours=1), tags=Tags(project="other", user="u"),
        upstream_cost=Decimal("0.002"),
    )  # fmt: skip
    # Neither insert saw the other's row.
    for call in (ours, theirs):
        rows.write(clickhouse, [rows.row_of(call, received_at=RECEIVED)])
    assert queries.spend(clickhouse, {}, MONTH).calls == 2
    assert rollup.roll(clickhouse).joined == 1
    assert rollup.roll(clickhouse).joined == 0
    (stored,) = queries.calls_page(clickhouse, {}, MONTH, page=1, page_size=9).calls
    assert stored.call.upstream_cost == Decimal("0.002")
    assert (stored.call.tags.team, stored.call.tags.user, stored.project) == ("search", "u", "acme")
    rows.insert(clickhouse, [theirs, ours], received_at=RECEIVED)
    assert queries.spend(clickhouse, {}, MONTH).calls == 1


@pytest.mark.usefixtures("settled_at_once")
def test_windows_that_cut_hours_are_exact(clickhouse: Connection) -> None:
    sent = spread(60)
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    rollup.roll(clickhouse)
    for start, end in [(3, 55), (0, 60), (61, 62), (90, 400), (17, 17 * 60)]:
        window = Window(NOON + timedelta(minutes=start), NOON + timedelta(minutes=end))
        inside = [call for call in sent if window.start <= call.call.started_at < window.end]
        spend = queries.spend(clickhouse, {}, window)
        assert (spend.calls, spend.cost) == (len(inside), total(inside))


@dataclass(frozen=True)
class Op:
    """One step of a history: what is done, to which of the calls."""

    kind: str
    numbers: tuple[int, ...]


_ops = st.lists(
    st.builds(
        Op,
        kind=st.sampled_from(["insert", "insert", "broadcast", "settle", "edit", "spans", "roll", "merge parts"]),
        numbers=st.lists(st.integers(1, 12), min_size=1, max_size=6).map(tuple),
    ),
    min_size=3,
    max_size=12,
)


def _version(ch: Connection, op: Op, number: int) -> PricedCall:
    plain = a_call(
        number,
        cost=None if number % 4 == 0 else f"0.00{number:02}00000001",
        started_at=NOON + timedelta(minutes=23 * number),
        tags=Tags(team=f"team-{number % 2}", project="acme", session=f"s-{number % 3}"),
    )
    # Who edits or settles a call has read it from the store, with the revision that it has there.
    stored = queries.call(ch, call_id(plain.call)) if op.kind in ("settle", "edit") else None
    standing = plain if stored is None else stored.priced()
    if op.kind == "broadcast":
        other = replace(plain.call, source="broadcast", tags=Tags(), usage=TokenUsage(input_tokens=7, output_tokens=9))
        return replace(plain, call=replace(other, started_at=other.started_at + timedelta(minutes=2)))
    if op.kind == "settle":
        return settled(standing, Decimal(number) / 1000)
    if op.kind == "edit":
        tags = replace(standing.call.tags, team="moved")
        return replace(standing, call=replace(standing.call, tags=tags), revision=standing.revision + 1)
    if op.kind == "spans":
        return a_call(number + 100, response_id=None, started_at=NOON + timedelta(minutes=23 * number))
    return plain


@pytest.mark.usefixtures("settled_at_once")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ops)
def test_after_any_history_rollup_calls_and_truth_agree(clickhouse: Connection, history: list[Op]) -> None:
    for table in TABLES:
        clickhouse.command("empty", f"TRUNCATE TABLE {table}")
    truth: dict[tuple[str, ...], PricedCall] = {}
    for op in history:
        if op.kind == "roll":
            rollup.roll(clickhouse)
        elif op.kind == "merge parts":
            clickhouse.command("merge_parts", "OPTIMIZE TABLE llm_calls FINAL")
        else:
            batch = [_version(clickhouse, op, number) for number in dict.fromkeys(op.numbers)]
            rows.insert(clickhouse, batch, received_at=RECEIVED)
            for call in batch:
                key = rows.identity(call.call)
                truth[key] = merge(truth[key], call) if key in truth else call
    _agree(clickhouse, list(truth.values()))
    rollup.roll(clickhouse)
    forget_calls(clickhouse)
    spend = queries.spend(clickhouse, {}, MONTH)
    assert (spend.calls, spend.cost) == (len(truth), total(list(truth.values())))


def _agree(ch: Connection, truth: list[PricedCall]) -> None:
    spend = queries.spend(ch, {}, MONTH)
    raw = ch.query("raw", "SELECT count(), sum(effective_cost), sum(input_tokens) FROM llm_calls FINAL")
    assert (spend.calls, spend.cost) == (len(truth), total(truth))
    assert spend.unpriced_calls == sum(call.effective_cost is None for call in truth)
    assert spend.input_tokens == sum(call.call.usage.input_tokens or 0 for call in truth)
    assert raw == [(spend.calls, spend.cost if spend.calls > spend.unpriced_calls else None, raw[0][2])]
    teams = {row.key: row.spend.cost for row in queries.spend_by(ch, ["team"], {}, MONTH)}
    assert sum(teams.values(), Decimal(0)) == spend.cost
    assert set(teams) == {(call.call.tags.team or "",) for call in truth}


def test_the_rollup_looks_by_the_engines_clock_not_by_the_callers(clickhouse: Connection) -> None:
    rows.insert(clickhouse, spread(3), received_at=datetime(2001, 1, 1, tzinfo=UTC))
    assert rollup.roll(clickhouse).hours > 0
