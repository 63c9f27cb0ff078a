"""A call comes back from ClickHouse as it went in."""

from dataclasses import fields, replace
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spendwatch.calls import CostBasis, Fingerprint, PricedCall, Tags, TokenUsage, ToolFingerprint, call_id
from spendwatch.clickhouse import queries, rows
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.columns import values
from spendwatch.clickhouse.stored import normalise
from tests.clickhouse.builders import NOON, RECEIVED, a_call, priced_calls


def test_a_stored_call_reads_back_equal(clickhouse: Connection) -> None:
    fingerprint = Fingerprint(
        system="00000000000000ff", last_role="tool", last_length=0, last_is_error=False, messages=3,
        tools=(ToolFingerprint(name="fs:read", arguments="0a" * 8, arguments_simhash="0b" * 8),),
    )  # fmt: skip
    sent = a_call(
        fingerprint=fingerprint,
        tags=Tags(team="search", project="acme", session="s", user="ü", extra={"run": "7"}),
        attributes={"spendwatch.note": "x"},
        is_byok=False,
        usage=TokenUsage(input_tokens=0),
    )
    rows.insert(clickhouse, [sent], received_at=RECEIVED)
    stored = queries.call(clickhouse, call_id(sent.call))
    assert stored is not None
    assert stored.priced() == normalise(sent)
    assert (stored.received_at, stored.project) == (RECEIVED, "acme")


def test_unknown_stays_unknown_and_zero_stays_zero(clickhouse: Connection) -> None:
    free = replace(a_call(1, cost="0", usage=TokenUsage(input_tokens=5, output_tokens=0)), routed_cost=None)
    unknown = a_call(2, cost=None, usage=TokenUsage())
    rows.insert(clickhouse, [free, unknown], received_at=RECEIVED)
    read = {
        call.call.response_id: call
        for call in queries.calls_received(clickhouse, RECEIVED, RECEIVED + timedelta(seconds=1), limit=9)
    }
    assert read["gen-1"].effective_cost == 0
    assert read["gen-1"].routed_cost is None
    assert read["gen-1"].call.usage == TokenUsage(input_tokens=5, output_tokens=0)
    assert read["gen-2"].effective_cost is None
    assert read["gen-2"].cost_basis is CostBasis.UNPRICED
    assert read["gen-2"].call.usage == TokenUsage()


def test_costs_keep_twelve_digits_and_times_their_microseconds(clickhouse: Connection) -> None:
    east = timezone(timedelta(hours=9))
    moment = (NOON + timedelta(microseconds=123_457)).astimezone(east)
    sent = a_call(cost="0.0000000375125", started_at=moment)
    rows.insert(clickhouse, [sent], received_at=RECEIVED)
    stored = queries.call(clickhouse, call_id(sent.call))
    assert stored is not None
    assert stored.effective_cost == Decimal("0.000000037512")  # half-even
    assert stored.call.started_at == moment
    assert stored.call.started_at.utcoffset() == timedelta(0)


def test_a_number_that_no_call_can_have_becomes_unknown_and_spoils_nothing(clickhouse: Connection) -> None:
    odd = a_call(
        1,
        usage=TokenUsage(input_tokens=-3, output_tokens=2**40),
        http_status=-1,
        server_port=70_000,
        duration_us=-5,
        reported_cost=Decimal(10) ** 9,
        fingerprint=Fingerprint(system="not hex", last_length=-1),
    )
    rows.insert(clickhouse, [odd, a_call(2)], received_at=RECEIVED)
    stored = queries.call(clickhouse, call_id(odd.call))
    assert stored is not None
    assert stored.call.usage == TokenUsage()
    assert (stored.call.http_status, stored.call.server_port, stored.call.duration_us) == (None, None, 0)
    assert stored.call.reported_cost is None
    assert stored.call.fingerprint is None


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(priced_calls, min_size=1, max_size=8, unique_by=lambda priced: rows.identity(priced.call)))
def test_any_call_reads_back_as_it_was_normalised(clickhouse: Connection, sent: list[PricedCall]) -> None:
    clickhouse.command("empty", "TRUNCATE TABLE llm_calls")
    rows.insert(clickhouse, sent, received_at=RECEIVED)
    read = queries.calls_received(clickhouse, RECEIVED, RECEIVED + timedelta(seconds=1), limit=99)
    assert {rows.identity(call.call): call.priced() for call in read} == {
        rows.identity(call.call): normalise(call) for call in sent
    }


_odd_number = st.none() | st.sampled_from([-5, 0, 1, 443, 2**16, 2**32 - 1, 2**32])
_odd_text = st.none() | st.sampled_from(["", "a", "zz", "f" * 16, "f" * 17, " 1f"])
_odd_cost = st.none() | st.decimals(-(10**7), 10**7, places=15)


@given(
    sent=priced_calls,
    usage=st.builds(TokenUsage, **{field.name: _odd_number for field in fields(TokenUsage)}),
    fingerprint=st.none()
    | st.builds(
        Fingerprint,
        system=_odd_text,
        last=_odd_text,
        last_role=_odd_text,
        last_length=_odd_number,
        messages=_odd_number,
    ),
    facts=st.fixed_dictionaries(
        dict.fromkeys(("server_port", "http_status", "time_to_first_chunk_us"), _odd_number)
        | dict.fromkeys(("response_id", "error_type", "key_hash"), _odd_text)
        | dict.fromkeys(("reported_cost", "listed_cost", "upstream_cost"), _odd_cost)
        | {"finish_reasons": st.lists(st.sampled_from(["stop", "a,b", ""])).map(tuple)}
    ),
    costs=st.fixed_dictionaries(dict.fromkeys(("list_cost", "routed_cost", "effective_cost"), _odd_cost)),
)
def test_a_rows_values_are_those_of_the_normalised_call(
    sent: PricedCall,
    usage: TokenUsage,
    fingerprint: Fingerprint | None,
    facts: dict[str, Any],
    costs: dict[str, Decimal | None],
) -> None:
    assert values(sent) == values(normalise(sent))
    odd = replace(sent, call=replace(sent.call, usage=usage, fingerprint=fingerprint, **facts), **costs)
    assert values(odd) == values(normalise(odd))
