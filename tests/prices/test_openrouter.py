"""OpenRouter's price documents: decimal strings, overrides, discounts, names, and what counts as not known."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from spendwatch.calls import CostBasis, LLMCall
from spendwatch.errors import ReadError
from spendwatch.prices import PriceBook, value

Call = Callable[..., LLMCall]
START = datetime(2026, 11, 1, tzinfo=UTC)


def book(*models: dict[str, Any]) -> PriceBook:
    return PriceBook().with_openrouter_models({"data": list(models)}, effective_from=START, version="openrouter@1")


def model(name: str = "openai/gpt-4.1", **pricing: Any) -> dict[str, Any]:
    return {
        "id": name,
        "canonical_slug": f"{name}-2025-04-14",
        "pricing": {"prompt": "0.000002", "completion": "0.000008", "input_cache_read": "5e-7", **pricing},
    }


def cost(prices: PriceBook, call: LLMCall) -> Decimal | None:
    return value(call, prices).effective_cost


def test_prices_are_decimal_strings_in_any_notation(call: Call) -> None:
    asked = call("openai/gpt-4.1", "openrouter", input_tokens=1000, output_tokens=100, cache_read_input_tokens=400)
    priced = value(asked, book(model()))
    assert priced.effective_cost == Decimal("0.0012") + Decimal("0.0002") + Decimal("0.0008")
    assert priced.list_cost == Decimal("0.0028")
    assert priced.routed_cost is None
    assert priced.price_version == "openrouter@1"


@pytest.mark.parametrize(
    "name", ["openai/gpt-4.1-2025-04-14", "openai/gpt-4.1:nitro", "openai/gpt-4.1:floor", "openai/gpt-4.1:online"]
)
def test_a_model_is_found_by_its_permanent_name_and_with_routing_suffixes(call: Call, name: str) -> None:
    assert cost(book(model()), call(name, "openrouter", input_tokens=1, output_tokens=0)) == Decimal("0.000002")


def test_a_colon_that_belongs_to_the_name_is_no_suffix(call: Call) -> None:
    assert cost(book(model("qwen/qwen")), call("qwen/qwen:7b", "openrouter", input_tokens=1, output_tokens=0)) is None


def test_an_alias_is_priced_as_its_target(call: Call) -> None:
    alias = {"id": "~openai/gpt-latest", "alias_target": "openai/gpt-4.1"}
    asked = call("~openai/gpt-latest", "openrouter", input_tokens=1, output_tokens=0)
    assert cost(book(model(), alias), asked) == Decimal("0.000002")


def test_a_negative_price_is_not_known_and_the_served_model_is_priced_instead(call: Call) -> None:
    router = model("openrouter/auto", prompt="-1", completion="-1")
    asked = call("openrouter/auto", "openrouter", input_tokens=1, output_tokens=0)
    assert value(asked, book(router, model())).cost_basis is CostBasis.UNPRICED
    served = call("openrouter/auto", "openrouter", response_model="openai/gpt-4.1", input_tokens=1, output_tokens=0)
    assert cost(book(router, model()), served) == Decimal("0.000002")


def test_a_discount_is_taken_off_every_price(call: Call) -> None:
    asked = call("openai/gpt-4.1", "openrouter", input_tokens=1000, output_tokens=0)
    assert cost(book(model(discount=0.25)), asked) == Decimal("0.0015")


def test_a_long_prompts_override_reprices_the_whole_request_and_keeps_what_it_does_not_name(call: Call) -> None:
    prices = book(model(overrides=[{"min_prompt_tokens": 200000, "prompt": "0.000004"}]))
    at_border = call("openai/gpt-4.1", "openrouter", input_tokens=200_000, output_tokens=10)
    above = call("openai/gpt-4.1", "openrouter", input_tokens=200_001, output_tokens=10)
    assert cost(prices, at_border) == Decimal("0.4") + Decimal("0.00008")
    assert cost(prices, above) == Decimal("0.800004") + Decimal("0.00008")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 11, 24, 1, 0, tzinfo=UTC), "0.000004"),
        (datetime(2026, 11, 24, 3, 59, tzinfo=UTC), "0.000004"),
        (datetime(2026, 11, 24, 4, 0, tzinfo=UTC), "0.000002"),
        (datetime(2026, 11, 28, 2, 0, tzinfo=UTC), "0.000002"),
    ],
    ids=["start", "end", "after", "saturday"],
)
def test_an_override_may_hold_at_some_hours_of_some_days(call: Call, at: datetime, expected: str) -> None:
    days = ["monday", "tuesday", "wednesday", "thursday", "friday"]
    peak = {"utc_start": 100, "utc_end": 400, "utc_days": days, "prompt": "0.000004"}
    asked = call("openai/gpt-4.1", "openrouter", input_tokens=1, output_tokens=0, at=at)
    assert cost(book(model(overrides=[peak])), asked) == Decimal(expected)


def test_the_serving_endpoints_price_is_the_routed_cost(call: Call) -> None:
    endpoints = {
        "data": {
            "id": "openai/gpt-4.1",
            "endpoints": [
                {"provider_name": "Azure", "pricing": {"prompt": "0.0000025", "completion": "0.00001"}},
                {
                    "provider_name": "Azure",
                    "service_tier": "priority",
                    "pricing": {"prompt": "0.000005", "completion": "0.00002"},
                },
            ],
        }
    }
    prices = book(model()).with_openrouter_endpoints([endpoints], version="openrouter@1")
    asked = call(
        "openai/gpt-4.1", "openrouter", serving_provider="Azure", input_tokens=1000, output_tokens=0,
        cache_read_input_tokens=1000, reported_cost=Decimal("0.0003"),
    )  # fmt: skip
    priced = value(asked, prices)
    assert (priced.list_cost, priced.routed_cost, priced.effective_cost) == (
        Decimal("0.002"),
        Decimal("0.0025"),
        Decimal("0.0003"),
    )


@pytest.mark.parametrize("document", [{}, {"data": {}}, {"data": None}, {"error": {"code": 401}}])
def test_a_document_of_another_kind_is_refused_with_what_was_found(document: dict[str, Any]) -> None:
    with pytest.raises(ReadError, match="expected"):
        PriceBook().with_openrouter_models(document, effective_from=START, version="v")
    with pytest.raises(ReadError, match="expected"):
        PriceBook().with_openrouter_endpoints([document], version="v")


def test_rows_that_are_no_models_are_passed_over(call: Call) -> None:
    odd = [1, None, {"id": 7}, {"id": "x"}, {"id": "y", "pricing": {"prompt": "cheap", "completion": "1"}}]
    prices = book(*odd, model())  # type: ignore[arg-type]
    assert cost(prices, call("openai/gpt-4.1", "openrouter", input_tokens=1, output_tokens=0)) == Decimal("0.000002")
    assert cost(prices, call("y", "openrouter", input_tokens=1, output_tokens=0)) is None
