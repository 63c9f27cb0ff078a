"""Projects and the tokens with which their apps may send spans.

A token's secret is shown once, when it is issued; only its SHA-256 is kept. A revoked token stays as a row, so that
the list tells who could ever send. Never here: reading spans, accounts at a provider.
"""

import hashlib
import secrets
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from collectors.imports.models import Import
from collectors.openrouter.models import OpenRouterAccount

__all__ = ["Import", "IngestToken", "OpenRouterAccount", "Project"]

TOKEN_PREFIX = "swt_"  # noqa: S105  # a public prefix: secret scanners and people recognise a token by it


def token_hash(secret: str) -> str:
    """What is kept of a token: SHA-256 hex. Enough without salt or stretching, since the secret is 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Project(models.Model):
    """Whose spend it is. Each call received with one of its tokens carries the slug as its `project`."""

    slug = models.SlugField(max_length=64, unique=True, help_text="Written on every call; can't be changed later.")
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name or self.slug

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, but never under another slug. Raises ValidationError for one."""
        self.clean()
        super().save(*args, **kwargs)

    def clean(self) -> None:
        """Refuse another slug for a project that is already there: the calls stored under the old one would lose it."""
        before = type(self).objects.filter(pk=self.pk).values_list("slug", flat=True).first() if self.pk else None
        if before is not None and before != self.slug:
            raise ValidationError(
                {"slug": f'expected "{before}", found "{self.slug}". A slug stays: make a new project instead.'}
            )


class IngestToken(models.Model):
    """One way in for one project's apps. `label` says where it is used, so that it can be replaced there."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="tokens")
    label = models.CharField(max_length=200)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="To about a minute.")
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("project", "-created_at")

    def __str__(self) -> str:
        return f"{self.project}: {self.label}"

    @classmethod
    def issue(cls, project: Project, label: str) -> tuple["IngestToken", str]:
        """A new token and its secret (`swt_…`), which nobody can read again."""
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        return cls.objects.create(project=project, label=label, token_hash=token_hash(secret)), secret

    def revoke(self) -> None:
        """Refuse the token from now on. The collector notices within the ten seconds it remembers a token."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])
