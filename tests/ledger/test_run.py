"""What the provider billed and what the apps saw are compared day by day; each planted difference is found once."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import openai
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

import spendwatch
from collectors.models import OpenRouterAccount
from collectors.openrouter.collect import collect
from ledger.admin import accept
from ledger.models import Adjustment, Reconciliation, Variance
from ledger.run import Run, run
from ledger.tasks import reconcile_recent
from spendwatch.calls import CallStatus, PricedCall
from spendwatch.clickhouse import rows
from spendwatch.clickhouse.client import Connection
from tests.fakes.openrouter import OpenRouter, key_hash
from tests.fixtures.openrouter import left_early, observed, yesterday

Ask = Callable[..., dict[str, Any]]
COST = Decimal("0.0021344")
TOKENS = {"prompt": 10240, "completion": 310, "cached": 8192, "reasoning": 12}


def now() -> datetime:
    return datetime.now(UTC)


def insert(store: Connection, *calls: PricedCall) -> None:
    rows.insert(store, calls, received_at=now())


def reconcile_days(store: Connection, account: OpenRouterAccount, days: int = 1) -> Run:
    collect(account, now=now())
    last = yesterday().date()
    return run(store, source="openrouter", first=last - timedelta(days=days - 1), last=last, now=now())


def found(done: Run) -> list[tuple[str, Decimal]]:
    return sorted((v.variance_class, v.amount) for day in done.days for v in day.variances.all())


def test_calls_that_were_billed_as_seen_leave_no_variance(
    store: Connection, account: OpenRouterAccount, ask: Ask
) -> None:
    replies = [
        ask(tokens=TOKENS),
        ask(tokens=TOKENS, dated_model=True),
        ask(tokens=TOKENS, provider="Azure", byok=True),
        ask(tokens=TOKENS, model="openai/gpt-4.1-mini:nitro"),
        ask(tokens=TOKENS, model="openrouter/auto"),
        ask(tokens=TOKENS, model="meta-llama/llama-3.3-70b-instruct", provider="Groq"),
        ask(tokens=TOKENS, model="meta-llama/llama-3.3-70b-instruct:free"),
    ]
    insert(store, *map(observed, replies))
    done = reconcile_days(store, account)
    (day,) = done.days
    assert list(day.variances.all()) == []
    assert day.statement_total == day.recorded_total != 0
    assert day.cells == day.agreed == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_made_by_the_openai_sdk_reconciles_with_zero_variance(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, stream: bool
) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from spendwatch.prices import packaged, value
    from spendwatch.semconv import from_attributes

    exporter = InMemorySpanExporter()
    spendwatch.instrument(hosts={openrouter.host: "openrouter"}, span_exporter=exporter)
    try:
        client = openai.OpenAI(api_key="sk-or-v1-search", base_url=openrouter.base_url, max_retries=0)
        script = {"reply": "Found.", "tokens": TOKENS}
        answer = client.chat.completions.create(
            model="openai/gpt-4.1-mini",
            messages=[{"role": "user", "content": "hi"}],
            metadata={"script": json.dumps(script)},
            stream=stream,
        )
        if stream:
            list(answer)  # type: ignore[arg-type]
        assert spendwatch.flush()
    finally:
        spendwatch.uninstrument()
    (span,) = exporter.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    call = from_attributes(
        dict(span.attributes or {}),
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        parent_span_id=None,
        started_at=datetime.fromtimestamp(span.start_time / 1e9, UTC),
        duration_us=(span.end_time - span.start_time) // 1000,
    )
    insert(store, value(call, packaged()))
    openrouter.post("/_settings", {"include_today": True})
    collect(account, now=now())
    today = now().date()
    (day,) = run(store, source="openrouter", first=today, last=today, now=now()).days
    assert (day.statement_total, day.recorded_total, day.cells, day.agreed) == (COST, COST, 1, 1)


def test_each_planted_difference_is_found_once_in_its_class_with_its_amount(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    planted = []
    wishes: list[dict[str, Any]] = [
        {"kind": "unbilled"},
        {"kind": "price", "factor": "1.1"},
        {"kind": "tokens", "extra_completion": 500},
        {"kind": "byok"},
        {"kind": "rounding", "places": 5},
        {"kind": "none"},
    ]
    for number, wish in enumerate(wishes):
        key = f"sk-or-v1-app-{number}"
        insert(store, *(observed(ask(key=key, tokens=TOKENS), key=key) for _ in range(3)))
        if wish["kind"] != "none":
            planted.append(openrouter.post("/_plant", {**wish, "key_hash": key_hash(key)}))
    noon = yesterday().isoformat()
    planted.append(openrouter.post("/_plant", {"kind": "unobserved", "at": noon, "key_name": "unknown-laptop"}))
    # Another unseen call, with the key of an app that is watched.
    watched_key = key_hash("sk-or-v1-app-5")
    wish = {"kind": "unobserved", "at": noon, "key_hash": watched_key, "tokens": {"prompt": 9, "completion": 9}}
    planted.append(openrouter.post("/_plant", wish))
    done = reconcile_days(store, account)
    assert found(done) == sorted((p["kind"], Decimal(p["amount"])) for p in planted)
    (day,) = done.days
    assert day.variance_total == sum(Decimal(p["amount"]) for p in planted)
    places = {(v.variance_class, v.key_hash) for v in day.variances.all()}
    assert places == {(p["kind"], p["key_hash"]) for p in planted}
    laptop = day.variances.get(key_name="unknown-laptop")
    assert laptop.evidence["apps_with_this_key"] == []
    watched = day.variances.get(variance_class="unobserved", key_hash=watched_key)
    assert watched.evidence["apps_with_this_key"] == [{"service_name": "search-api", "team": "search"}]


def test_the_call_that_was_not_billed_is_named_and_what_remains_is_judged_on_its_own(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    replies = [ask(tokens={"prompt": 1000 * n, "completion": n}) for n in (1, 2, 3)]
    insert(store, *map(observed, replies))
    dropped = openrouter.post("/_plant", {"kind": "unbilled", "id": replies[1]["id"]})
    dearer = openrouter.post("/_plant", {"kind": "price", "id": replies[2]["id"], "factor": "2"})
    done = reconcile_days(store, account)
    assert found(done) == [("price", Decimal(dearer["amount"])), ("unbilled", Decimal(dropped["amount"]))]
    unbilled = Variance.objects.get(variance_class="unbilled")
    assert [call["response_id"] for call in unbilled.evidence["calls"]] == [replies[1]["id"]]
    assert unbilled.evidence["apps"] == [{"service_name": "search-api", "team": "search"}]


def test_a_call_that_failed_before_any_reply_is_not_missed_on_the_statement(
    store: Connection, account: OpenRouterAccount, ask: Ask
) -> None:
    seen = observed(ask(tokens=TOKENS))
    failed = left_early(seen)
    refused = replace(failed.call, status=CallStatus.ERROR, http_status=429, response_id=None, span_id="ab" * 8)
    insert(store, seen, replace(failed, call=refused))
    assert found(reconcile_days(store, account)) == []


def test_a_call_of_unknown_cost_is_late_until_it_is_settled(
    store: Connection, account: OpenRouterAccount, ask: Ask
) -> None:
    whole = observed(ask(tokens=TOKENS))
    insert(store, whole, left_early(observed(ask(tokens=TOKENS))))
    done = reconcile_days(store, account)
    assert found(done) == [("late", COST)]
    (late,) = done.days[0].variances.all()
    assert [call["status"] for call in late.evidence["calls"]] == ["aborted"]


def test_running_again_changes_nothing_and_a_change_makes_a_new_current_one(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    insert(store, observed(ask(tokens=TOKENS)))
    openrouter.post("/_plant", {"kind": "price"})
    first = reconcile_days(store, account)
    assert (first.new, reconcile_days(store, account).new) == (1, 0)
    insert(store, observed(ask(tokens=TOKENS, provider="Azure")))
    again = reconcile_days(store, account)
    assert again.new == 1
    assert [each.current for each in Reconciliation.objects.order_by("made_at", "pk")] == [False, True]
    assert Variance.objects.open().count() == 1
    assert Variance.objects.unreconciled_usd() == COST / 4


def test_an_accepted_variance_stays_accepted_while_it_is_the_same(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    user = User.objects.create_user("finance")
    insert(store, observed(ask(tokens=TOKENS)))
    openrouter.post("/_plant", {"kind": "price"})
    reconcile_days(store, account)
    variance = Variance.objects.open().get()
    assert accept(variance, user.pk, "agreed with sales")
    assert not accept(variance, user.pk, "twice")
    assert Variance.objects.unreconciled_usd() == 0
    # Something else of the day changes: the decision stands.
    insert(store, observed(ask(tokens=TOKENS, provider="Azure")))
    reconcile_days(store, account)
    assert [v.status for v in Variance.objects.current()] == ["accepted"]
    # The difference itself changes: it is open again, and what was decided stays on record.
    openrouter.post("/_plant", {"kind": "price", "model": "openai/gpt-4.1-mini", "factor": "3"})
    reconcile_days(store, account)
    assert "open" in {v.status for v in Variance.objects.current()}
    (adjustment,) = Adjustment.objects.all()
    assert (adjustment.amount, adjustment.made_by, adjustment.reason) == (COST / 4, user, "price: agreed with sales")


def test_a_day_that_no_statement_covers_is_not_judged(store: Connection, account: OpenRouterAccount, ask: Ask) -> None:
    long_ago = yesterday() - timedelta(days=40)
    insert(store, observed(ask(tokens=TOKENS, at=long_ago), at=long_ago))
    collect(account, now=now())
    done = run(store, source="openrouter", first=long_ago.date(), last=long_ago.date(), now=now())
    assert (done.days, done.uncovered) == ([], [long_ago.date()])


def test_the_daily_task_reconciles_what_is_covered(store: Connection, account: OpenRouterAccount, ask: Ask) -> None:
    reconcile_recent()
    assert not Reconciliation.objects.exists()
    insert(store, observed(ask(tokens=TOKENS)))
    collect(account, now=now())
    reconcile_recent()
    reconcile_recent()
    assert Reconciliation.objects.count() == 30
    assert Reconciliation.objects.get(day=yesterday().date()).statement_total == COST


def test_the_command_shows_a_table_and_json_and_the_bridge(
    store: Connection, openrouter: OpenRouter, account: OpenRouterAccount, ask: Ask
) -> None:
    insert(store, observed(ask(tokens=TOKENS)))
    openrouter.name_key("sk-or-v1-search", "search")
    openrouter.post("/_plant", {"kind": "price", "factor": "2"})
    collect(account, now=now())
    day = yesterday().date().isoformat()

    def command(*arguments: str) -> str:
        out = StringIO()
        call_command("reconcile", "--from", day, "--to", day, *arguments, stdout=out)
        return out.getvalue()

    table = command()
    assert "price               0.0021344 USD  openai/gpt-4.1-mini-2025-04-14 openai search:" in table
    document = json.loads(command("--format", "json"))
    (stated,) = document["days"]
    assert (stated["statement"], stated["recorded"], stated["variance"]) == ("0.0042688", "0.0021344", "0.0021344")
    assert [(v["class"], v["amount"], v["key_name"]) for v in stated["variances"]] == [("price", "0.0021344", "search")]
    (pier,) = document["bridge"]
    assert (pier["account"], pier["difference"], pier["opening"]) == ("main", "0", "0")
