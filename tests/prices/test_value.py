"""Valuing a call: every token in one bucket, every bucket priced once, exactly."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendwatch.calls import CostBasis, LLMCall, TokenUsage
from spendwatch.prices import PriceBook, value
from spendwatch.prices.book import ByName, Meter, Model, Rate

Call = Callable[..., LLMCall]
START = datetime(2026, 1, 1, tzinfo=UTC)

PLAIN: dict[Meter, Any] = {
    Meter.INPUT: Decimal("0.000003"),
    Meter.OUTPUT: Decimal("0.000015"),
    Meter.CACHE_READ: Decimal("0.0000003"),
    Meter.CACHE_WRITE: Decimal("0.00000375"),
    Meter.CACHE_WRITE_1H: Decimal("0.000006"),
}


def book(*rates: Rate, provider: str = "openai", **more: Any) -> PriceBook:
    model = Model(name="m", rates=rates, version="test@1", **more)
    return PriceBook().with_catalogue(provider, ByName({"m": model}), effective_from=START)


def test_a_plain_call_costs_its_tokens(call: Call) -> None:
    priced = value(call("m", input_tokens=1000, output_tokens=200), book(Rate(prices=PLAIN)))
    assert priced.list_cost == priced.routed_cost == priced.effective_cost == Decimal("0.006")
    assert priced.cost_basis is CostBasis.LISTED
    assert priced.price_version == "test@1"


def test_cache_reads_and_writes_have_prices_of_their_own_and_the_list_price_ignores_them(call: Call) -> None:
    priced = value(
        call(
            "m",
            input_tokens=10_000,
            output_tokens=0,
            cache_read_input_tokens=6000,
            cache_write_input_tokens=3000,
            cache_write_1h_input_tokens=1000,
        ),
        book(Rate(prices=PLAIN)),
    )
    assert priced.list_cost == Decimal("0.03")
    assert priced.effective_cost == (
        1000 * PLAIN[Meter.INPUT]
        + 6000 * PLAIN[Meter.CACHE_READ]
        + 2000 * PLAIN[Meter.CACHE_WRITE]
        + 1000 * PLAIN[Meter.CACHE_WRITE_1H]
    )


def test_a_cost_that_the_reply_reports_wins(call: Call) -> None:
    priced = value(
        call(
            "m", input_tokens=1000, output_tokens=200, reported_cost=Decimal("0.0051"), upstream_cost=Decimal("0.0051")
        ),
        book(Rate(prices=PLAIN)),
    )
    assert priced.effective_cost == Decimal("0.0051")
    assert priced.cost_basis is CostBasis.REPORTED
    assert priced.list_cost == Decimal("0.006")


def test_with_a_key_of_ones_own_the_providers_charge_comes_on_top_of_the_fee(call: Call) -> None:
    own = call("m", is_byok=True, reported_cost=Decimal("0.0009375"), upstream_cost=Decimal("0.01875"))
    assert value(own, PriceBook()).effective_cost == Decimal("0.0196875")


def test_with_a_key_of_ones_own_and_no_stated_charge_the_listed_cost_stands_for_it(call: Call) -> None:
    own = call("m", input_tokens=1000, output_tokens=200, is_byok=True, reported_cost=Decimal("0.0003"))
    priced = value(own, book(Rate(prices=PLAIN)))
    assert priced.effective_cost == Decimal("0.0063")
    assert priced.cost_basis is CostBasis.LISTED


def test_an_unknown_model_is_unpriced_and_never_zero(call: Call) -> None:
    priced = value(call("of-tomorrow", input_tokens=1000, output_tokens=200), book(Rate(prices=PLAIN)))
    assert priced.effective_cost is None
    assert priced.list_cost is None
    assert priced.cost_basis is CostBasis.UNPRICED
    assert priced.price_version is None


def test_unknown_output_tokens_make_the_cost_unknown_but_an_embedding_has_none(call: Call) -> None:
    prices = book(Rate(prices=PLAIN))
    assert value(call("m", input_tokens=1000), prices).effective_cost is None
    embedding = value(call("m", input_tokens=1000, operation_name="embeddings"), prices)
    assert embedding.effective_cost == Decimal("0.003")


def test_a_free_variant_costs_nothing_by_price(call: Call) -> None:
    priced = value(call("meta/llama:free", "openrouter", input_tokens=10, output_tokens=10), PriceBook())
    assert priced.effective_cost == priced.list_cost == 0
    assert priced.cost_basis is CostBasis.LISTED
    assert priced.price_version == "free"


def test_a_refused_request_costs_nothing(call: Call) -> None:
    priced = value(call("of-tomorrow", http_status=429), PriceBook())
    assert priced.effective_cost == 0
    assert priced.price_version == "failed-request"


def test_the_observers_listed_cost_stands_when_our_book_knows_nothing(call: Call) -> None:
    priced = value(call("of-tomorrow", listed_cost=Decimal("0.01"), price_version="theirs@7"), PriceBook())
    assert priced.effective_cost == Decimal("0.01")
    assert priced.cost_basis is CostBasis.LISTED
    assert priced.price_version == "theirs@7"


def test_a_long_input_reprices_the_whole_call_and_the_border_itself_does_not(call: Call) -> None:
    stepped = {
        Meter.INPUT: ((-1, Decimal(1)), (200_000, Decimal(2))),
        Meter.OUTPUT: ((-1, Decimal(5)), (200_000, Decimal(7))),
    }
    prices = book(Rate(prices=stepped))
    # Cached tokens count towards the border.
    assert value(call("m", input_tokens=200_000, output_tokens=1), prices).list_cost == 200_005
    long = call("m", input_tokens=200_001, output_tokens=1, cache_read_input_tokens=200_000)
    assert value(long, prices).effective_cost == 400_009


def test_a_rate_holds_from_its_day_on(call: Call) -> None:
    prices = book(
        Rate(prices={Meter.INPUT: Decimal(10), Meter.OUTPUT: Decimal(10)}),
        Rate(prices={Meter.INPUT: Decimal(2)}, effective_from=date(2026, 6, 10), replaces=False),
    )
    before = call("m", input_tokens=1, output_tokens=0, at=datetime(2026, 6, 9, 23, 59, 59, tzinfo=UTC))
    after = call("m", input_tokens=1, output_tokens=0, at=datetime(2026, 6, 10, tzinfo=UTC))
    assert value(before, prices).effective_cost == 10
    assert value(after, prices).effective_cost == 2


def test_a_service_tier_has_prices_of_its_own_and_the_list_price_is_the_standard_one(call: Call) -> None:
    prices = book(
        Rate(prices=PLAIN),
        Rate(prices={Meter.INPUT: Decimal("0.0000015")}, tier="flex", effective_from=date(2026, 5, 1)),
    )
    flex = value(call("m", input_tokens=1000, output_tokens=0, service_tier="flex"), prices)
    assert (flex.list_cost, flex.effective_cost) == (Decimal("0.003"), Decimal("0.0015"))
    plain = value(call("m", input_tokens=1000, output_tokens=0, service_tier="default"), prices)
    assert plain.effective_cost == Decimal("0.003")


def test_a_tier_without_known_prices_leaves_the_cost_unknown(call: Call) -> None:
    priced = value(call("m", input_tokens=1000, output_tokens=0, service_tier="priority"), book(Rate(prices=PLAIN)))
    assert priced.effective_cost is None
    assert priced.list_cost == Decimal("0.003")


@pytest.mark.parametrize(
    ("clock", "expected"), [("00:29", 1), ("00:30", 2), ("16:29", 2), ("16:30", 1)], ids=lambda value: str(value)
)
def test_a_rate_may_hold_at_some_hours_only(call: Call, clock: str, expected: int) -> None:
    prices = book(
        Rate(prices={Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(1)}),
        Rate(prices={Meter.INPUT: Decimal(2)}, hours=(time(0, 30), time(16, 30))),
    )
    at = datetime.combine(date(2026, 11, 24), time.fromisoformat(clock), tzinfo=UTC)
    priced = value(call("m", input_tokens=1, output_tokens=0, at=at), prices)
    assert priced.effective_cost == expected
    assert priced.list_cost == 1


def test_a_window_over_midnight_belongs_to_the_day_it_began_on(call: Call) -> None:
    night = Rate(prices={Meter.INPUT: Decimal(2)}, hours=(time(22), time(4)), days=frozenset({4}))
    prices = book(Rate(prices={Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(1)}), night)
    friday_late = datetime(2026, 11, 27, 23, tzinfo=UTC)
    saturday_early = datetime(2026, 11, 28, 3, tzinfo=UTC)
    saturday_late = datetime(2026, 11, 28, 23, tzinfo=UTC)
    costs = [
        value(call("m", input_tokens=1, output_tokens=0, at=at), prices).effective_cost
        for at in (friday_late, saturday_early, saturday_late)
    ]
    assert costs == [2, 2, 1]


def test_audio_images_reasoning_requests_and_searches_are_priced_apart(call: Call) -> None:
    prices = book(
        Rate(
            prices={
                Meter.INPUT: Decimal(1),
                Meter.OUTPUT: Decimal(2),
                Meter.INPUT_AUDIO: Decimal(10),
                Meter.INPUT_IMAGE: Decimal(20),
                Meter.REASONING: Decimal(3),
                Meter.OUTPUT_AUDIO: Decimal(30),
                Meter.REQUEST: Decimal(1000),
                Meter.WEB_SEARCH: Decimal(5000),
            }
        )
    )
    priced = value(
        call(
            "m",
            input_tokens=10,
            input_audio_tokens=2,
            input_image_tokens=3,
            output_tokens=10,
            reasoning_output_tokens=4,
            output_audio_tokens=1,
            attributes={"web_searches": "2"},
        ),
        prices,
    )
    assert priced.effective_cost == (2 * 10 + 3 * 20 + 5 * 1) + (4 * 3 + 1 * 30 + 5 * 2) + 1000 + 2 * 5000


def test_more_cached_tokens_than_input_tokens_never_make_a_cost_below_zero(call: Call) -> None:
    odd = call("m", input_tokens=7, output_tokens=8, cache_read_input_tokens=161)
    assert value(odd, book(Rate(prices=PLAIN))).effective_cost == 7 * PLAIN[Meter.CACHE_READ] + 8 * PLAIN[Meter.OUTPUT]


def test_at_azure_the_served_model_is_looked_up_before_the_deployments_name(call: Call) -> None:
    prices = book(Rate(prices=PLAIN), provider="azure.ai.openai")
    deployed = call("our-deployment", "azure.ai.openai", response_model="m", input_tokens=1000, output_tokens=0)
    assert value(deployed, prices).effective_cost == Decimal("0.003")


def test_a_later_snapshot_of_prices_leaves_earlier_calls_as_they_were_valued(call: Call) -> None:
    cheaper = Model(
        name="m", rates=(Rate(prices={Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(1)}),), version="test@2"
    )
    prices = book(Rate(prices={Meter.INPUT: Decimal(3), Meter.OUTPUT: Decimal(3)})).with_catalogue(
        "openai", ByName({"m": cheaper}), effective_from=datetime(2026, 11, 1, tzinfo=UTC)
    )
    old = value(call("m", input_tokens=1, output_tokens=0, at=datetime(2026, 10, 31, tzinfo=UTC)), prices)
    new = value(call("m", input_tokens=1, output_tokens=0), prices)
    assert (old.effective_cost, old.price_version) == (3, "test@1")
    assert (new.effective_cost, new.price_version) == (1, "test@2")


counts = st.none() | st.integers(0, 10**9)


@given(st.builds(TokenUsage, **dict.fromkeys(TokenUsage.__dataclass_fields__, counts)))
def test_any_usage_costs_between_nothing_and_every_token_at_the_dearest_price(usage: TokenUsage) -> None:
    call = LLMCall(
        trace_id="0" * 32,
        span_id="0" * 16,
        started_at=datetime(2026, 11, 24, tzinfo=UTC),
        duration_us=1,
        provider_name="openai",
        request_model="m",
        usage=usage,
    )
    priced = value(call, book(Rate(prices=PLAIN)))
    if usage.input_tokens is None or usage.output_tokens is None:
        assert priced.effective_cost is None
    else:
        assert priced.effective_cost is not None
        dearest = usage.input_tokens * PLAIN[Meter.CACHE_WRITE_1H] + usage.output_tokens * PLAIN[Meter.OUTPUT]
        assert 0 <= priced.effective_cost <= dearest
        assert priced.list_cost == usage.input_tokens * PLAIN[Meter.INPUT] + usage.output_tokens * PLAIN[Meter.OUTPUT]


@given(
    usage=st.builds(TokenUsage, **dict.fromkeys(TokenUsage.__dataclass_fields__, counts)),
    tier=st.sampled_from([None, "default", "flex", "batch"]),
    hour=st.integers(0, 23),
    prices=st.sampled_from([
        (Rate(prices=PLAIN),),
        (Rate(prices=PLAIN), Rate(prices={Meter.INPUT: Decimal(1)}, tier="flex")),
        (Rate(prices=PLAIN, hours=(time(1), time(9))),),
        (Rate(prices={Meter.OUTPUT: Decimal(1)}), Rate(prices={Meter.INPUT: Decimal(1)}, hours=(time(20), time(2)))),
    ]),
)  # fmt: skip
def test_a_reported_cost_changes_only_what_the_call_cost(
    usage: TokenUsage, tier: str | None, hour: int, prices: tuple[Rate, ...]
) -> None:
    call = LLMCall(
        trace_id="0" * 32,
        span_id="0" * 16,
        started_at=datetime(2026, 11, 24, hour, tzinfo=UTC),
        duration_us=1,
        provider_name="openai",
        request_model="m",
        service_tier=tier,
        usage=usage,
    )
    listed = value(call, book(*prices))
    charged = value(replace(call, reported_cost=Decimal(1)), book(*prices))
    assert (charged.list_cost, charged.routed_cost, charged.price_version) == (
        listed.list_cost,
        listed.routed_cost,
        listed.price_version,
    )
    assert (charged.effective_cost, charged.cost_basis) == (1, CostBasis.REPORTED)


def test_a_host_that_nobody_knows_lists_a_maker_s_model_at_the_maker_s_price(call: Call) -> None:
    unknown = {"provider": "gateway.example", "server_address": "gateway.example", "wire_format": "openai_chat"}
    rates = book(Rate(prices=PLAIN))
    assert value(call("m", input_tokens=1000, output_tokens=200, **unknown), rates).effective_cost == Decimal("0.006")
    for other in (
        {**unknown, "provider": "vllm"},  # the app said who it is
        {**unknown, "wire_format": "anthropic_messages"},
        {**unknown, "wire_format": "ollama"},
    ):
        assert value(call("m", input_tokens=1000, output_tokens=200, **other), rates).effective_cost is None
    assert value(call("llama", input_tokens=1000, output_tokens=200, **unknown), rates).effective_cost is None
