"""Calls are valued with the newest prices that were collected."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ledger import prices
from ledger.statements import keep
from spendwatch.calls import LLMCall, TokenUsage
from spendwatch.prices import value

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CALL = LLMCall(
    trace_id="0" * 32,
    span_id="1" * 16,
    started_at=NOW,
    duration_us=1,
    provider_name="openrouter",
    request_model="acme/one",
    response_model="acme/one",
    usage=TokenUsage(input_tokens=1000, output_tokens=0),
)


@pytest.fixture(autouse=True)
def _no_book_of_another_test() -> Iterator[None]:
    prices.forget()
    yield
    prices.forget()


def snapshot(prompt: str) -> None:
    document = f'{{"data": [{{"id": "acme/one", "pricing": {{"prompt": "{prompt}", "completion": "1e-6"}}}}]}}'
    keep(source="openrouter", account="main", kind="models", document=document, now=NOW)


@pytest.mark.django_db
def test_a_model_nobody_packaged_is_priced_once_its_price_was_collected() -> None:
    assert value(CALL, prices.current_book()).list_cost is None
    snapshot("2e-6")
    prices.forget()
    priced = value(CALL, prices.current_book())
    assert priced.list_cost == Decimal("0.002")
    assert (priced.price_version or "").startswith("openrouter-2026-11-20-")


@pytest.mark.django_db
def test_the_book_is_kept_for_a_minute_and_read_anew_when_prices_changed() -> None:
    snapshot("2e-6")
    book = prices.current_book()
    snapshot("3e-6")
    assert prices.current_book() is book
    prices.forget()
    assert value(CALL, prices.current_book()).list_cost == Decimal("0.003")
