"""Projects and tokens in the admin: a secret is shown once, a slug stays, nothing is deleted."""

import re

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from collectors.models import IngestToken, Project, token_hash

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return Project.objects.create(slug="shop", name="Shop")


def test_a_token_is_issued_and_its_secret_is_shown_once(admin_client: Client, project: Project) -> None:
    url = reverse("admin:spendwatch_collectors_ingesttoken_add")
    page = admin_client.post(url, {"project": project.pk, "label": "checkout"}, follow=True)
    secret = re.search(r"swt_[\w-]+", page.content.decode())
    assert secret is not None
    token = IngestToken.objects.get()
    assert (token.label, token.project, token.token_hash) == ("checkout", project, token_hash(secret[0]))
    for again in ("changelist", "change"):
        arguments = [token.pk] if again == "change" else []
        found = admin_client.get(reverse(f"admin:spendwatch_collectors_ingesttoken_{again}", args=arguments))
        assert found.status_code == 200
        assert secret[0] not in found.content.decode()
        assert token.token_hash not in found.content.decode()


def test_a_token_can_be_named_anew_but_not_moved_or_deleted(admin_client: Client, project: Project) -> None:
    token, _ = IngestToken.issue(project, "checkout")
    other = Project.objects.create(slug="billing", name="Billing")
    url = reverse("admin:spendwatch_collectors_ingesttoken_change", args=[token.pk])
    assert admin_client.post(url, {"project": other.pk, "label": "basket"}).status_code == 302
    token.refresh_from_db()
    assert (token.label, token.project) == ("basket", project)
    url = reverse("admin:spendwatch_collectors_ingesttoken_delete", args=[token.pk])
    assert admin_client.post(url, {"post": "yes"}).status_code == 403
    assert IngestToken.objects.count() == 1


def test_tokens_are_revoked_from_the_list(admin_client: Client, project: Project) -> None:
    token, _ = IngestToken.issue(project, "checkout")
    kept, _ = IngestToken.issue(project, "basket")
    url = reverse("admin:spendwatch_collectors_ingesttoken_changelist")
    page = admin_client.post(url, {"action": "revoke", "_selected_action": [token.pk]}, follow=True)
    assert "Revoked." in page.content.decode()
    token.refresh_from_db()
    kept.refresh_from_db()
    assert token.revoked_at is not None
    assert kept.revoked_at is None


def test_a_slug_stays(admin_client: Client, project: Project) -> None:
    url = reverse("admin:spendwatch_collectors_project_change", args=[project.pk])
    assert admin_client.post(url, {"slug": "other", "name": "The shop"}).status_code == 302
    project.refresh_from_db()
    assert (project.slug, project.name) == ("shop", "The shop")
    project.slug = "other"
    with pytest.raises(ValidationError, match="A slug stays"):
        project.save()
