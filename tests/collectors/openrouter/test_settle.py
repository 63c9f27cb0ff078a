"""An aborted call gets its cost from its generation, once, as a later revision."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from collectors.models import OpenRouterAccount
from collectors.openrouter.collect import collect
from collectors.openrouter.models import GenerationLookup
from collectors.openrouter.settle import settle
from ledger.models import Statement
from ledger.run import run
from spendwatch.calls import CallStatus, CostBasis, call_id
from spendwatch.clickhouse import queries, rows
from spendwatch.clickhouse.client import Connection
from tests.fakes.openrouter import OpenRouter
from tests.fixtures.openrouter import left_early, observed, yesterday

Ask = Callable[..., dict[str, Any]]
COST = Decimal("0.0021344")
TOKENS = {"prompt": 10240, "completion": 310, "cached": 8192, "reasoning": 12}


def now() -> datetime:
    return datetime.now(UTC)


def test_an_aborted_call_is_settled_when_its_generation_is_there_and_then_agrees_with_the_statement(
    store: Connection, account: OpenRouterAccount, ask: Ask
) -> None:
    aborted = left_early(observed(ask(tokens=TOKENS)))
    rows.insert(store, [aborted], received_at=now())
    first = settle(store, now=now())
    # The generation is not known yet at the first look.
    assert (first.settled, first.waiting) == (0, 1)
    assert settle(store, now=now()).settled == 0, "asked again only when it is due"
    assert settle(store, now=now() + timedelta(minutes=2)).settled == 1
    call = queries.call(store, call_id(aborted.call))
    assert call is not None
    assert (call.effective_cost, call.cost_basis, call.revision) == (COST, CostBasis.SETTLED, 1)
    assert (call.call.status, call.call.serving_provider) == (CallStatus.ABORTED, "OpenAI")
    assert (call.call.usage.input_tokens, call.call.usage.cache_read_input_tokens) == (10240, 8192)
    assert Statement.objects.filter(kind="generation", subject=aborted.call.response_id).count() == 1
    assert not GenerationLookup.objects.exists()
    assert settle(store, now=now() + timedelta(minutes=4)).settled == 0
    collect(account, now=now())
    day = yesterday().date()
    assert run(store, source="openrouter", first=day, last=day, now=now()).days[0].variance_total == 0


def test_a_call_served_with_a_key_of_ones_own_is_settled_with_both_parts(
    store: Connection, account: OpenRouterAccount, ask: Ask
) -> None:
    aborted = left_early(observed(ask(tokens=TOKENS, byok=True)))
    rows.insert(store, [aborted], received_at=now())
    settle(store, now=now())
    settle(store, now=now() + timedelta(minutes=2))
    call = queries.call(store, call_id(aborted.call))
    assert call is not None
    assert (call.effective_cost, call.call.upstream_cost, call.call.is_byok) == (COST + COST / 20, COST, True)


def test_a_generation_that_never_comes_is_given_up_after_a_day(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    aborted = left_early(observed(ask(tokens=TOKENS)))
    rows.insert(store, [aborted], received_at=now())
    openrouter.world.generations.clear()
    start = now()
    for hour in range(30):
        settle(store, now=start + timedelta(hours=hour))
    asked = [path for path in openrouter.world.requests if "/generation" in path]
    assert 20 <= len(asked) <= 26
    assert GenerationLookup.objects.get().next_at is None


def test_a_refused_key_settles_nothing_and_is_not_asked_in_a_loop(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    rows.insert(store, [left_early(observed(ask(tokens=TOKENS)))], received_at=now())
    OpenRouterAccount.objects.update(management_key="sk-or-v1-stranger")
    for _ in range(3):
        assert settle(store, now=now()).settled == 0
    assert len([path for path in openrouter.world.requests if "/generation" in path]) == 1


def test_without_an_account_nothing_is_asked(store: Connection, db: None) -> None:
    assert settle(store, now=now()).settled == 0
