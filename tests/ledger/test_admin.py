"""The ledger's pages show facts and let only those with the right act on them."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from ledger.models import Adjustment, Balance, ProviderKey, Reconciliation, Statement, StatementLine, Variance
from ledger.statements import keep

NOW = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
DAY = date(2026, 11, 20)


@pytest.fixture
def variance(db: None) -> Variance:
    made = Reconciliation.objects.create(
        source="openrouter", day=DAY, made_at=NOW, statement_total=Decimal(2), recorded_total=Decimal("1.5"),
        variance_total=Decimal("0.5"), cells=2, agreed=1, digest="d",
    )  # fmt: skip
    return Variance.objects.create(
        reconciliation=made, source="openrouter", day=DAY, model="acme/one", endpoint="azure", key_hash="k" * 64,
        key_name="unknown-laptop", variance_class="unobserved", amount=Decimal("0.5"),
        evidence={"reason": "1 call more billed than recorded", "statement": {}, "recorded": {}},
    )  # fmt: skip


def login(client: Client, role: str) -> Client:
    user = User.objects.create_user(role, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    return client


def page(name: str, *arguments: int) -> str:
    return reverse(f"admin:spendwatch_ledger_{name}", args=arguments)


def act(client: Client, model: str, action: str, pk: int) -> None:
    answer = client.post(
        page(f"{model}_changelist"), {"action": action, "_selected_action": [pk]}, headers={"accept": "text/html"}
    )
    assert answer.status_code in (200, 302, 403)


def test_a_viewer_reads_every_list_and_page(client: Client, variance: Variance) -> None:
    statement = Statement.objects.create(
        source="openrouter", account="main", kind="activity", document='{"data": []}', sha256="s", version=1,
        collected_at=NOW, confirmed_at=NOW,
    )  # fmt: skip
    StatementLine.objects.create(
        statement=statement, source="openrouter", account="main", day=DAY, model="acme/one", key_hash="k",
        usage=Decimal("1.25"), byok_usage=Decimal(0), requests=1, input_tokens=1, output_tokens=1, reasoning_tokens=0,
        version=1,
    )  # fmt: skip
    Balance.objects.create(
        statement=statement, source="openrouter", account="main", taken_at=NOW, purchased=Decimal(500),
        used=Decimal("123.456789"), used_today=Decimal(0),
    )  # fmt: skip
    Adjustment.objects.create(source="openrouter", day=DAY, amount=Decimal(1), reason="agreed with sales", made_at=NOW)
    ProviderKey.objects.create(source="openrouter", account="main", hash="k", name="search", listed_at=NOW)
    login(client, "viewer")
    for name, shows in [
        ("statement", "activity"),
        ("statementline", "1.25"),
        ("balance", "123.456789"),
        ("balance", "Beside the statements"),
        ("providerkey", "search"),
        ("reconciliation", "1 of 2"),
        ("variance", "unknown-laptop"),
        ("adjustment", "agreed with sales"),
    ]:
        answer = client.get(page(f"{name}_changelist"))
        assert answer.status_code == 200, name
        assert shows in answer.content.decode(), name
    assert "1 call more billed" in client.get(page("variance_change", variance.pk)).content.decode()
    assert "unobserved" in client.get(page("reconciliation_change", variance.reconciliation_id)).content.decode()
    assert "&quot;data&quot;" in client.get(page("statement_change", statement.pk)).content.decode()


@pytest.mark.parametrize("role", ["viewer", "finance", "platform", "owner"])
def test_nobody_edits_or_deletes_a_fact(client: Client, variance: Variance, role: str) -> None:
    login(client, role)
    assert client.post(page("variance_change", variance.pk), {"amount": "0"}).status_code == 403
    assert client.post(page("variance_delete", variance.pk), {"post": "yes"}).status_code == 403
    assert client.get(page("statement_add")).status_code == 403
    variance.refresh_from_db()
    assert variance.amount == Decimal("0.5")


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("platform", False), ("finance", True), ("owner", True)])
def test_accepting_a_variance_is_for_those_who_keep_the_ledger(
    client: Client, variance: Variance, role: str, may: bool
) -> None:
    login(client, role)
    act(client, "variance", "accept", variance.pk)
    assert [each.amount for each in Adjustment.objects.all()] == ([Decimal("0.5")] if may else [])
    variance.refresh_from_db()
    assert variance.status == ("accepted" if may else "open")
    if may:
        assert Adjustment.objects.get().made_by == User.objects.get(username=role)
        act(client, "variance", "accept", variance.pk)
        assert Adjustment.objects.count() == 1


def test_the_list_shows_open_variances_first_and_the_others_on_request(client: Client, variance: Variance) -> None:
    login(client, "finance")
    act(client, "variance", "accept", variance.pk)
    lists: Callable[[str], str] = lambda query: client.get(page("variance_changelist") + query).content.decode()  # noqa: E731
    assert "unknown-laptop" not in lists("")
    assert "unknown-laptop" in lists("?status=accepted")
    assert "unknown-laptop" in lists("?status=all")


def test_running_again_without_clickhouse_says_so_and_changes_nothing(
    client: Client, variance: Variance, settings: object
) -> None:
    keep(source="openrouter", account="main", kind="activity", document="{}", now=NOW, period=(DAY, DAY))
    settings.SPENDWATCH_CLICKHOUSE_DSN = "http://spendwatch:x@127.0.0.1:9/spendwatch"  # type: ignore[attr-defined]
    login(client, "finance")
    answer = client.post(
        page("reconciliation_changelist"),
        {"action": "run_again", "_selected_action": [variance.reconciliation_id]},
        follow=True,
    )
    assert "Not all days were compared" in answer.content.decode()
    assert Reconciliation.objects.count() == 1
