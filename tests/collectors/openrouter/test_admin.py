"""The management key goes into an account's page and never comes out."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from collectors.models import OpenRouterAccount
from ledger.models import Statement
from tests.fakes.openrouter import OpenRouter

LIST = "admin:spendwatch_collectors_openrouteraccount_changelist"
ADD = "admin:spendwatch_collectors_openrouteraccount_add"
CHANGE = "admin:spendwatch_collectors_openrouteraccount_change"


@pytest.fixture
def owner(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("owner"))
    return client


def test_an_account_is_added_and_its_key_is_on_no_page(owner: Client, openrouter: OpenRouter) -> None:
    fields = {"name": "main", "base_url": openrouter.base_url, "management_key": "sk-or-v1-secret", "active": "on"}
    assert owner.post(reverse(ADD), fields).status_code == 302
    account = OpenRouterAccount.objects.get()
    assert account.management_key == "sk-or-v1-secret"
    for page in (reverse(LIST), reverse(CHANGE, args=[account.pk])):
        assert "sk-or-v1-secret" not in owner.get(page).content.decode()


def test_an_empty_key_keeps_the_present_one_and_a_new_one_replaces_it(
    owner: Client, account: OpenRouterAccount, openrouter: OpenRouter
) -> None:
    page = reverse(CHANGE, args=[account.pk])
    fields = {"base_url": openrouter.base_url, "management_key": "", "active": "on"}
    assert owner.post(page, fields).status_code == 302
    assert OpenRouterAccount.objects.get().management_key == openrouter.management_key
    assert owner.post(page, {**fields, "management_key": "sk-or-v1-new"}).status_code == 302
    assert OpenRouterAccount.objects.get().management_key == "sk-or-v1-new"


def test_a_new_account_needs_a_key_and_an_error_page_does_not_show_what_was_typed(owner: Client) -> None:
    answer = owner.post(reverse(ADD), {"name": "main", "base_url": "https://openrouter.ai/api/v1"})
    assert "needs its management key" in answer.content.decode()
    answer = owner.post(reverse(ADD), {"name": "no slug", "base_url": "x", "management_key": "sk-or-v1-typed"})
    assert answer.status_code == 200
    assert "sk-or-v1-typed" not in answer.content.decode()
    assert not OpenRouterAccount.objects.exists()


def test_collect_now_tells_what_came_or_why_not(
    owner: Client, account: OpenRouterAccount, openrouter: OpenRouter
) -> None:
    action = {"action": "collect_now", "_selected_action": [account.pk]}
    assert "new documents" in owner.post(reverse(LIST), action, follow=True).content.decode()
    assert Statement.objects.exists()
    OpenRouterAccount.objects.update(management_key="sk-or-v1-inference")
    said = owner.post(reverse(LIST), action, follow=True).content.decode()
    assert "a key without rights" in said
    assert "sk-or-v1-inference" not in said
