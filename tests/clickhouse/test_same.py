"""Another instrumentation's span over our own call: one row, whoever comes first and in however many batches."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from spendwatch.calls import CallStatus, CostBasis, LLMCall, PricedCall, Tags, TokenUsage
from spendwatch.clickhouse import queries, rollup, rows, same
from spendwatch.clickhouse.client import Connection
from tests.clickhouse.builders import MONTH, NOON, RECEIVED, a_call

TRACE = "a" * 32
USE = TokenUsage(input_tokens=1000, output_tokens=100)
NO_USE = TokenUsage()


def at(milliseconds: int) -> dict[str, Any]:
    return {"started_at": NOON + timedelta(milliseconds=milliseconds)}


def ours(number: int, parent: int | None = 1, start: int = 10, ms: int = 800, **facts: Any) -> PricedCall:
    """Our SDK's span of an HTTP call, below span `parent`."""
    plain: dict[str, Any] = {
        "trace_id": TRACE, "span_id": f"{number:016x}", "parent_span_id": parent and f"{parent:016x}",
        "response_id": f"chatcmpl-{number}", "provider_name": "10.0.0.7", "serving_provider": None,
        "request_model": "gpt-5-mini", "response_model": "gpt-5-mini-2026-01-01", "usage": USE,
        "duration_us": ms * 1000, **at(start),
    }  # fmt: skip
    return a_call(number, cost=None, **plain | facts)


def theirs(number: int = 1, parent: int | None = None, start: int = 0, ms: int = 1000, **facts: Any) -> PricedCall:
    """Another instrumentation's span of a call, which names no id of the reply."""
    plain: dict[str, Any] = {
        "trace_id": TRACE, "span_id": f"{number:016x}", "parent_span_id": parent and f"{parent:016x}",
        "response_id": None, "provider_name": "openai", "serving_provider": None,
        "request_model": "gpt-5-mini-2026-01-01", "response_model": None, "usage": USE, "key_hash": None,
        "duration_us": ms * 1000, "source": "otlp:openinference", "finish_reasons": (), "http_status": None,
        "tags": Tags(project="acme", user="u-1"), **at(start),
    }  # fmt: skip
    return a_call(number, cost=None, **plain | facts)


FAILED: dict[str, Any] = {
    "status": CallStatus.ERROR, "http_status": 429, "error_type": "rate_limited", "usage": NO_USE,
    "response_id": None, "response_model": None, "finish_reasons": (),
}  # fmt: skip

# A case -> what is sent, and the span ids of the rows that must be left (of several, any one).
CASES: dict[str, tuple[list[PricedCall], list[set[int]]]] = {
    "the span over the call": ([theirs(), ours(2)], [{2}]),
    "with a wrapper between, that is no call": ([theirs(), ours(2, parent=77)], [{2}]),
    "with another instrumentation's span between": (
        [theirs(), theirs(3, parent=1, start=1, source="otlp:genai"), ours(2, parent=3)],
        [{2}],
    ),
    "with one that names the reply between": (
        [theirs(), theirs(3, parent=1, start=1, source="otlp:genai", response_id="chatcmpl-2"), ours(2, parent=3)],
        [{2}],
    ),
    "two spans of one instrumentation over each other": ([theirs(), theirs(3, parent=1), ours(2, parent=3)], [{2}]),
    "no call of ours under two instrumentations' spans": (
        [theirs(), theirs(3, parent=1, start=1, source="otlp:genai")],
        [{1, 3}],
    ),
    "a provider by another name, and the same id": ([theirs(response_id="chatcmpl-2"), ours(2)], [{2}]),
    "the same id outside of the trace": (
        [theirs(response_id="chatcmpl-2", trace_id="b" * 32), ours(2, parent=None)],
        [{2}],
    ),
    "a retry": ([theirs(), ours(2, ms=100, **FAILED), ours(3, start=200)], [{2}, {3}]),
    "a retry under a wrapper": (
        [theirs(), ours(2, parent=77, ms=100, **FAILED), ours(3, parent=77, start=200)],
        [{2}, {3}],
    ),
    "only attempts that failed": (
        [
            theirs(status=CallStatus.ERROR, error_type="RateLimitError", usage=NO_USE),
            ours(2, ms=100, **FAILED),
            ours(3, start=200, **FAILED),
        ],
        [{2}, {3}],
    ),
    "two calls in one span, which tells of the second": (
        [theirs(), ours(2, ms=100, usage=TokenUsage(input_tokens=7, output_tokens=3)), ours(3, start=200)],
        [{2}, {3}],
    ),
    "two calls in one span, alike": ([theirs(), ours(2, ms=100), ours(3, start=200)], [{2}, {3}]),
    "two calls in one span, which adds them up": (
        [theirs(usage=TokenUsage(input_tokens=2000, output_tokens=200)), ours(2, ms=100), ours(3, start=200)],
        [{2}, {3}],
    ),
    "two calls side by side, each under its span": (
        [theirs(), theirs(5, start=2), ours(2), ours(6, parent=5, start=12)],
        [{2}, {6}],
    ),
    "two calls side by side, each under a wrapper in its span": (
        [theirs(), theirs(5, start=2), ours(2, parent=77), ours(6, parent=78, start=12)],
        [{2}, {6}],
    ),
    "a call beside one that only they saw": (
        [theirs(), theirs(5, start=1, usage=TokenUsage(input_tokens=5, output_tokens=5)), ours(2)],
        [{2}, {5}],
    ),
    "a call of another model inside": (
        [theirs(), ours(2, request_model="o9", response_model="o9", usage=TokenUsage(input_tokens=9, output_tokens=1))],
        [{1}, {2}],
    ),
    "an embedding inside": (
        [theirs(), ours(2, operation_name="embeddings", usage=TokenUsage(input_tokens=9))],
        [{1}, {2}],
    ),
    "another reply": ([theirs(response_id="chatcmpl-1"), ours(2)], [{1}, {2}]),
    "another trace": ([theirs(trace_id="b" * 32), ours(2, parent=None)], [{1}, {2}]),
    "another trace, of an observer whose spans stand apart": (
        [theirs(trace_id="b" * 32, source="otlp:langfuse"), ours(2, parent=None)],
        [{2}],
    ),
    "another trace, of that observer and with other tokens": (
        [theirs(trace_id="b" * 32, source="otlp:langfuse"), ours(2, parent=None, usage=NO_USE)],
        [{1}, {2}],
    ),
    "two calls at once, each with a span that stands apart": (
        [
            theirs(trace_id="b" * 32, source="otlp:langfuse"),
            theirs(5, trace_id="c" * 32, source="otlp:langfuse", start=1),
            ours(2, parent=None),
            ours(6, parent=None, trace_id="d" * 32, start=12),
        ],
        [{2}, {6}],
    ),
    "later in the trace": ([theirs(), ours(2, parent=77, start=5000)], [{1}, {2}]),
    "at the same time with other tokens": (
        [theirs(), ours(2, parent=77, usage=TokenUsage(input_tokens=1001, output_tokens=100))],
        [{1}, {2}],
    ),
    "two of ours over each other": ([ours(1, parent=None), ours(2)], [{1}, {2}]),
    "a stream that nobody counted": (
        [theirs(usage=NO_USE, streamed=True), ours(2, usage=NO_USE, streamed=True)],
        [{2}],
    ),
    "a stream that only they counted": ([theirs(streamed=True), ours(2, usage=NO_USE, streamed=True)], [{2}]),
    "a call left early, whose id only they know": (
        [theirs(response_id="chatcmpl-9"), ours(2, status=CallStatus.ABORTED, response_id=None, usage=NO_USE)],
        [{1, 2}],
    ),
    "cache counted beside the input": (
        [
            theirs(usage=TokenUsage(input_tokens=600, output_tokens=100, cache_read_input_tokens=400)),
            ours(2, parent=77, usage=replace(USE, cache_read_input_tokens=400)),
        ],
        [{2}],
    ),
}  # fmt: skip


def left(ch: Connection) -> list[LLMCall]:
    return [found.call for found in queries.calls_page(ch, {}, MONTH, page=1, page_size=999).calls]


def deliver(ch: Connection, batches: Iterable[Sequence[PricedCall]]) -> None:
    for batch in batches:
        rows.insert(ch, batch, received_at=RECEIVED)


def agree(found: Sequence[LLMCall], expected: list[set[int]]) -> None:
    spans = sorted(int(call.span_id, 16) for call in found)
    assert len(spans) == len(expected), spans
    assert any(sorted(choice) == spans for choice in itertools.product(*expected)), spans


def world(call: PricedCall, number: int) -> PricedCall:
    """The same call in traces, and with an id of the reply, that no other world has."""
    own = call.call
    renamed = own.response_id and f"{own.response_id}-{number}"
    return replace(call, call=replace(own, trace_id=own.trace_id[:28] + f"{number:04x}", response_id=renamed))


@pytest.mark.parametrize("case", CASES)
def test_each_call_is_one_row_in_any_order_and_any_batches(case: str, clickhouse: Connection) -> None:
    sent, expected = CASES[case]
    numbers = itertools.count(1)
    orders = [
        [world(call, number) for call in order] for order, number in zip(permutations(sent), numbers, strict=False)
    ]
    one_by_one = list(zip(*orders, strict=True))
    wholes = [
        [world(call, number) for call in order] for order, number in zip(permutations(sent), numbers, strict=False)
    ]

    def check() -> list[LLMCall]:
        rollup.roll(clickhouse)
        found = left(clickhouse)
        for world_ in [*orders, *wholes]:
            traces = {call.call.trace_id for call in world_}
            agree([call for call in found if call.trace_id in traces], expected)
        assert queries.spend(clickhouse, {}, MONTH).calls == len(found)
        return found

    deliver(clickhouse, [*one_by_one, *wholes])
    check()
    # All of it once more, the other way round, and again: what is gone stays gone.
    again = [*reversed(one_by_one), *([call] for call in wholes[0])]
    deliver(clickhouse, again)
    agreed = check()
    deliver(clickhouse, again)
    assert check() == agreed


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_what_either_knows_is_in_the_row(first: str, clickhouse: Connection) -> None:
    own = replace(
        ours(2, usage=TokenUsage(input_tokens=1000)), effective_cost=Decimal("0.5"), cost_basis=CostBasis.LISTED
    )
    other = theirs(reported_cost=Decimal("0.25"), usage=TokenUsage(input_tokens=1000, output_tokens=100))
    other = replace(other, effective_cost=Decimal("0.25"), cost_basis=CostBasis.REPORTED)
    deliver(clickhouse, [[own], [other]] if first == "ours" else [[other], [own]])
    rollup.roll(clickhouse)
    (stored,) = queries.calls_page(clickhouse, {}, MONTH, page=1, page_size=9).calls
    call = stored.call
    assert (call.source, call.provider_name, call.response_id) == ("sdk", "10.0.0.7", "chatcmpl-2")
    assert (call.usage.input_tokens, call.usage.output_tokens) == (1000, 100)
    assert (stored.effective_cost, stored.cost_basis) == (Decimal("0.25"), CostBasis.REPORTED)
    assert (call.tags.team, call.tags.user) == ("search", "u-1")
    assert call.key_hash == own.call.key_hash


def test_at_insert_alone_a_span_that_comes_after_our_call_makes_no_row(clickhouse: Connection) -> None:
    deliver(clickhouse, [[ours(2)], [theirs()], [theirs()]])
    agree(left(clickhouse), [{2}])


def test_our_calls_alone_are_looked_up_no_further(clickhouse: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    query = Connection.query

    def listening(self: Connection, name: str, *arguments: Any) -> Any:
        asked.append(name)
        return query(self, name, *arguments)

    monkeypatch.setattr(Connection, "query", listening)
    deliver(clickhouse, [[ours(2), ours(3)]])
    assert asked == ["find_ids"]


def test_a_long_trace_is_looked_through_in_no_time_to_speak_of() -> None:
    calls = [theirs(n, start=n).call for n in range(1, 2000)]
    calls += [ours(n + 10_000, parent=77, start=n + 1, ms=900).call for n in range(1, 2000)]
    found = same.repeats(calls)
    assert len(found) == 1999
    assert len({repeat.of for repeat in found.values()}) == 1999
