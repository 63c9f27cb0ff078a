"""One row per call, however often and by whomever it is sent."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from spendwatch.calls import CallStatus, CostBasis, PricedCall, Tags, TokenUsage, Window, call_id
from spendwatch.clickhouse import queries, rows
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.stored import StoredCall
from tests.clickhouse.builders import MONTH, NOON, RECEIVED, SETTLED_AT, a_call, settled, total

LATER = RECEIVED + timedelta(minutes=5)


def everything(ch: Connection) -> list[StoredCall]:
    return queries.calls_page(ch, {}, MONTH, page=1, page_size=1000).calls


def versions(ch: Connection) -> int:
    """Rows as they lie on disk, replaced ones included."""
    return int(ch.query("versions", "SELECT count() FROM llm_calls")[0][0])


def broadcast(number: int, **facts: Any) -> PricedCall:
    other: dict[str, Any] = {"source": "broadcast", "trace_id": "f" * 32, "tags": Tags(project="broadcast")}
    return a_call(number, started_at=NOON + timedelta(seconds=number + 3), **other | facts)


def test_inserted_calls_are_found_with_their_cost(clickhouse: Connection) -> None:
    sent = [a_call(number) for number in range(1, 51)]
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    spend = queries.spend(clickhouse, {}, MONTH)
    assert (spend.calls, spend.cost) == (50, total(sent))


def test_no_calls_is_no_insert(clickhouse: Connection) -> None:
    rows.insert(clickhouse, [], received_at=RECEIVED)
    assert versions(clickhouse) == 0


def test_a_resend_changes_nothing_and_writes_nothing(clickhouse: Connection) -> None:
    sent = [a_call(number) for number in range(1, 21)]
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    before = everything(clickhouse)
    rows.insert(clickhouse, sent, received_at=LATER)
    rows.insert(clickhouse, sent[5:9], received_at=LATER)
    assert everything(clickhouse) == before
    assert versions(clickhouse) == 20


def test_a_call_known_only_by_its_span_is_one_row_however_often_it_comes(clickhouse: Connection) -> None:
    aborted = [a_call(number, response_id=None, status=CallStatus.ABORTED, cost=None) for number in (1, 2)]
    for _ in range(3):
        rows.insert(clickhouse, aborted, received_at=RECEIVED)
    assert queries.spend(clickhouse, {}, MONTH).calls == 2


def test_a_call_sent_twice_in_one_batch_is_one_row(clickhouse: Connection) -> None:
    rows.insert(clickhouse, [a_call(1), broadcast(1), a_call(1)], received_at=RECEIVED)
    (stored,) = everything(clickhouse)
    assert (stored.call.source, stored.call.tags.team, versions(clickhouse)) == ("sdk", "search", 1)


def test_several_observers_of_one_generation_are_one_row_in_any_order(clickhouse: Connection) -> None:
    ours = a_call(1, cost=None, status=CallStatus.ABORTED, usage=TokenUsage())
    theirs = broadcast(1, upstream_cost=Decimal("0.001"))
    other = a_call(
        1, source="otlp:openllmetry", cost=None, usage=TokenUsage(reasoning_output_tokens=60), span_id="e" * 16
    )
    for batch in ([theirs], [ours], [other], [theirs, ours]):
        rows.insert(clickhouse, batch, received_at=RECEIVED)
    (stored,) = everything(clickhouse)
    assert stored.call.source == "sdk"
    assert stored.call.status is CallStatus.ABORTED
    assert stored.call.usage == replace(theirs.call.usage, reasoning_output_tokens=60)
    assert (stored.effective_cost, stored.cost_basis) == (theirs.effective_cost, CostBasis.REPORTED)
    assert stored.call.tags.team == "search"


def test_a_merged_row_stays_where_the_call_was_first_stored(clickhouse: Connection) -> None:
    theirs = broadcast(1)
    rows.insert(clickhouse, [theirs], received_at=RECEIVED)
    rows.insert(clickhouse, [a_call(1)], received_at=LATER)
    (stored,) = everything(clickhouse)
    assert (stored.call.started_at, stored.project) == (theirs.call.started_at, "broadcast")
    assert (stored.received_at, stored.revision) == (LATER, stored.revision)
    assert stored.revision > 0


def test_a_session_learnt_later_moves_the_call_without_doubling_it(clickhouse: Connection) -> None:
    rows.insert(clickhouse, [broadcast(1)], received_at=RECEIVED)
    rows.insert(clickhouse, [a_call(1)], received_at=LATER)
    assert queries.spend(clickhouse, {"session_id": ["s-1"]}, MONTH).calls == 1
    assert queries.spend(clickhouse, {"session_id": [""]}, MONTH).calls == 0
    rows.insert(clickhouse, [broadcast(1)], received_at=LATER)
    assert queries.spend(clickhouse, {}, MONTH).calls == 1


def test_a_settled_cost_replaces_the_old_one_and_survives_a_resend(clickhouse: Connection) -> None:
    sent = a_call(1, cost=None, status=CallStatus.ABORTED)
    rows.insert(clickhouse, [sent], received_at=RECEIVED)
    (stored,) = queries.unsettled(clickhouse, "openrouter", MONTH, limit=5)
    rows.insert(clickhouse, [settled(stored)], received_at=LATER)
    rows.insert(clickhouse, [settled(stored)], received_at=LATER)
    rows.insert(clickhouse, [sent], received_at=LATER)
    (after,) = everything(clickhouse)
    assert (after.effective_cost, after.cost_basis) == (SETTLED_AT, CostBasis.SETTLED)
    assert queries.unsettled(clickhouse, "openrouter", MONTH, limit=5) == []
    assert queries.spend(clickhouse, {}, MONTH).cost == SETTLED_AT


def test_a_batch_across_the_month_border_is_stored_in_both_months(clickhouse: Connection) -> None:
    border = datetime(2026, 12, 1, tzinfo=UTC)
    sent = [a_call(number, started_at=border + timedelta(minutes=number - 10)) for number in range(1, 21)]
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    november = queries.spend(clickhouse, {}, MONTH)
    december = queries.spend(clickhouse, {}, Window(border, border + timedelta(days=1)))
    assert (november.calls, december.calls) == (9, 11)


def test_two_calls_whose_ids_collide_stay_two_calls(clickhouse: Connection) -> None:
    rows.insert(clickhouse, [a_call(1)], received_at=RECEIVED)
    (stored,) = everything(clickhouse)
    # A stranger's call under the same 64 bits, a second earlier.
    stranger = replace(
        stored, call=replace(stored.call, response_id="gen-other", started_at=NOON, reported_cost=Decimal(5))
    )
    row = list(rows.removal(stranger))
    row[0], row[2] = call_id(stored.call), 0
    rows.write(clickhouse, [tuple(row)])
    rows.insert(clickhouse, [settled(a_call(1))], received_at=LATER)
    assert sorted(str(call.call.response_id) for call in everything(clickhouse)) == ["gen-1", "gen-other"]
    assert {call.call.response_id: call.cost_basis for call in everything(clickhouse)}[
        "gen-other"
    ] is CostBasis.REPORTED


def test_writers_in_several_threads_lose_and_double_nothing(clickhouse: Connection, migrated_store_dsn: str) -> None:
    sent = [a_call(number) for number in range(1, 201)]

    def send(part: int) -> None:
        with connect(migrated_store_dsn, caller="writer") as ch:
            for start in range(0, 200, 50):
                rows.insert(ch, sent[start : start + 50], received_at=RECEIVED + timedelta(seconds=part))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    spend = queries.spend(clickhouse, {}, MONTH)
    assert (spend.calls, spend.cost) == (200, total(sent))
