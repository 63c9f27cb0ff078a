"""Statements are collected whole, kept verbatim and once; what a source refuses is said clearly and changes nothing."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from collectors.models import OpenRouterAccount
from collectors.openrouter.collect import collect
from collectors.openrouter.tasks import collect_openrouter
from ledger import prices
from ledger.models import Balance, ProviderKey, Statement, StatementLine
from ledger.statements import digest
from spendwatch.errors import CollectError, ReadError
from spendwatch.prices import value
from tests.fakes.openrouter import OpenRouter, key_hash
from tests.fixtures.openrouter import observed

Ask = Callable[..., dict[str, Any]]
COST = Decimal("0.0021344")
TOKENS = {"prompt": 10240, "completion": 310, "cached": 8192}


def now() -> datetime:
    return datetime.now(UTC)


def test_each_keys_usage_becomes_a_line(openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask) -> None:
    openrouter.name_key("sk-or-v1-search", "search")
    for _ in range(2):
        ask(tokens=TOKENS)
    ask(tokens=TOKENS, key="sk-or-v1-chat")
    ask(tokens=TOKENS, provider="Azure", byok=True)
    collected = collect(account, now=now())
    lines = StatementLine.objects.current().order_by("provider_name", "requests")
    assert collected.lines == 3
    assert [(x.provider_name, x.key_hash, x.requests, x.usage, x.byok_usage, x.cached_tokens) for x in lines] == [
        ("Azure", key_hash("sk-or-v1-search"), 1, COST / 20, COST, 8192),
        ("OpenAI", key_hash("sk-or-v1-chat"), 1, COST, Decimal(0), 8192),
        ("OpenAI", key_hash("sk-or-v1-search"), 2, 2 * COST, Decimal(0), 16384),
    ]
    assert ProviderKey.objects.get(hash=key_hash("sk-or-v1-search")).name == "search"
    balance = Balance.objects.get()
    assert (balance.purchased, balance.used, balance.used_today) == (500, 3 * COST + COST / 20, 0)


def test_documents_are_kept_verbatim_with_their_hash(account: OpenRouterAccount, ask: Ask) -> None:
    ask(tokens=TOKENS)
    collect(account, now=now())
    for statement in Statement.objects.all():
        assert statement.sha256 == digest(statement.document)
    total = Statement.objects.get(kind="activity", subject="")
    assert json.loads(total.document, parse_float=Decimal)["data"][0]["usage"] == COST
    yesterday = now().date() - timedelta(days=1)
    assert (total.period_start, total.period_end) == (yesterday - timedelta(days=29), yesterday)
    kinds = set(Statement.objects.values_list("kind", flat=True))
    assert kinds == {"activity", "credits", "keys", "models", "endpoints"}


def test_prices_of_the_endpoints_in_use_are_collected_and_value_calls(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    call = observed(ask(tokens=TOKENS, model="meta-llama/llama-3.3-70b-instruct", provider="Groq")).call
    collect(account, now=now())
    prices.forget()
    priced = value(call, prices.current_book())
    # Listed at the model's price, routed at what Groq charges; the free variant shares the dated id and has no say.
    assert priced.list_cost == 10240 * Decimal("0.00000012") + 310 * Decimal("0.00000038")
    assert priced.routed_cost == 10240 * Decimal("0.00000059") + 310 * Decimal("0.00000079")
    assert [path for path in openrouter.world.requests if "/endpoints" in path] == [
        "GET /api/v1/models/meta-llama/llama-3.3-70b-instruct/endpoints"
    ]
    prices.forget()


def test_a_model_whose_prices_are_not_shown_holds_up_no_statement(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    openrouter.post("/_fail", {"path": "/api/v1/models/openai/gpt-4.1-mini-2025-04-14/endpoints", "status": 403})
    assert collect(account, now=now()).lines == 1
    assert not Statement.objects.filter(kind="endpoints").exists()


def test_prices_are_asked_for_once_a_day(openrouter: OpenRouter, account: OpenRouterAccount) -> None:
    start = now()
    for hour in range(0, 45, 5):
        collect(account, now=start + timedelta(hours=hour))
    assert openrouter.world.requests.count("GET /api/v1/models") == 2
    assert Statement.objects.filter(kind="models").count() == 1


def test_collecting_again_what_did_not_change_adds_no_row_and_asks_for_no_key(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    collect(account, now=now())
    counts = [model.objects.count() for model in (Statement, StatementLine, Balance)]
    openrouter.world.requests.clear()
    again = collect(account, now=now())
    assert (again.documents, again.lines) == (0, 0)
    assert [model.objects.count() for model in (Statement, StatementLine, Balance)] == counts
    assert [path for path in openrouter.world.requests if "api_key_hash" in path] == []


def test_a_row_that_changed_is_a_new_version_and_the_old_one_stays(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    collect(account, now=now())
    openrouter.post("/_plant", {"kind": "price", "factor": "1.5"})
    collect(account, now=now())
    assert list(StatementLine.objects.order_by("version").values_list("version", "usage")) == [
        (1, COST),
        (2, COST * 3 / 2),
    ]
    assert [line.usage for line in StatementLine.objects.current()] == [COST * 3 / 2]


def test_a_row_that_is_stated_no_more_becomes_a_version_of_nothing(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    collect(account, now=now())
    openrouter.post("/_plant", {"kind": "unbilled"})
    collect(account, now=now())
    (line,) = StatementLine.objects.current()
    assert (line.version, line.usage, line.requests) == (2, 0, 0)
    assert collect(account, now=now()).lines == 0


def test_spend_of_a_key_that_is_not_listed_is_a_line_under_no_key(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    ask(tokens=TOKENS, key="sk-or-v1-deleted")
    del openrouter.world.keys[key_hash("sk-or-v1-deleted")]
    collect(account, now=now())
    lines = StatementLine.objects.current().order_by("key_hash")
    assert [(line.key_hash, line.requests, line.usage) for line in lines] == [
        ("", 1, COST),
        (key_hash("sk-or-v1-search"), 1, COST),
    ]


def test_all_pages_of_keys_are_read(openrouter: OpenRouter, account: OpenRouterAccount) -> None:
    for number in range(230):
        openrouter.world.key(f"sk-or-v1-{number}")
    collect(account, now=now())
    assert ProviderKey.objects.count() == 230
    assert Statement.objects.filter(kind="keys").count() == 3


def test_a_key_without_rights_is_said_on_the_account_and_nothing_is_kept(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    OpenRouterAccount.objects.update(management_key="sk-or-v1-search")
    account.refresh_from_db()
    with pytest.raises(CollectError, match="expected a management key, found a key without rights") as caught:
        collect(account, now=now())
    assert caught.value.permanent
    account.refresh_from_db()
    assert account.last_error == str(caught.value)
    assert "sk-or-v1-search" not in account.last_error
    assert not Statement.objects.exists()
    # Put right, it collects, and the error is gone.
    OpenRouterAccount.objects.update(management_key=openrouter.management_key)
    account.refresh_from_db()
    collect(account, now=now())
    account.refresh_from_db()
    assert account.last_error == ""
    assert account.last_collected_at is not None


def test_rights_that_end_half_way_leave_nothing_behind(
    openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    ask(tokens=TOKENS)
    openrouter.post("/_fail", {"path": "/api/v1/activity", "status": 403})
    with pytest.raises(CollectError, match="/activity"):
        collect(account, now=now())
    assert not Statement.objects.exists()
    assert not ProviderKey.objects.exists()


def test_a_busy_server_is_asked_again_when_it_says(openrouter: OpenRouter, account: OpenRouterAccount) -> None:
    openrouter.post("/_fail", {"path": "/api/v1/credits", "status": 429, "retry_after_s": 0})
    openrouter.post("/_fail", {"path": "/api/v1/credits", "status": 503, "retry_after_s": 0})
    assert collect(account, now=now()).documents
    openrouter.post("/_fail", {"path": "/api/v1/credits", "status": 429, "retry_after_s": 3600})
    with pytest.raises(CollectError) as caught:
        collect(account, now=now())
    assert (caught.value.permanent, caught.value.retry_after_s) == (False, 3600)


def test_a_document_that_is_none_is_refused_whole(openrouter: OpenRouter, account: OpenRouterAccount) -> None:
    openrouter.post("/_fail", {"path": "/api/v1/activity", "status": 200, "body": {"data": [{"date": "2026-11-20"}]}})
    with pytest.raises(ReadError, match="model can't be read"):
        collect(account, now=now())
    assert not Statement.objects.exists()


def test_one_account_that_refuses_holds_up_no_other(openrouter: OpenRouter, account: OpenRouterAccount) -> None:
    OpenRouterAccount.objects.create(name="alien", base_url=openrouter.base_url, management_key="sk-or-v1-none")
    OpenRouterAccount.objects.create(
        name="paused", base_url=openrouter.base_url, management_key=openrouter.management_key, active=False
    )
    collect_openrouter()
    collect_openrouter()
    assert set(Statement.objects.values_list("account", flat=True)) == {"main"}
    assert "without rights" in OpenRouterAccount.objects.get(name="alien").last_error


def test_the_command_says_what_it_collected_and_fails_loudly(account: OpenRouterAccount, ask: Ask) -> None:
    ask(tokens=TOKENS)
    out = StringIO()
    call_command("collect", "openrouter", stdout=out)
    assert out.getvalue() == "main: 6 new documents, 1 new lines\n"
    OpenRouterAccount.objects.update(management_key="sk-or-v1-search")
    with pytest.raises(CommandError, match="without rights"):
        call_command("collect", "openrouter", account="main")
    with pytest.raises(CommandError, match="expected an account 'other'"):
        call_command("collect", "openrouter", account="other")


def test_the_management_key_is_not_readable_in_the_database(account: OpenRouterAccount) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT management_key FROM spendwatch_collectors_openrouteraccount")
        (stored,) = cursor.fetchone()
    assert account.management_key not in stored
    assert OpenRouterAccount.objects.get().management_key == account.management_key
