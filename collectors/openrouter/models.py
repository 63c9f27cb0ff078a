"""The OpenRouter accounts whose statements are collected.

The management key is encrypted at rest and never shown again. Never here: what the statements say.
"""

from django.core.validators import URLValidator
from django.db import models
from encrypted_fields.fields import EncryptedTextField

DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"


class OpenRouterAccount(models.Model):
    """One account, read with its management key."""

    name = models.SlugField(max_length=100, unique=True, help_text="What its statements are filed under.")
    base_url = models.CharField(
        max_length=300, default=DEFAULT_BASE_URL, validators=[URLValidator(schemes=["https", "http"])]
    )
    management_key = EncryptedTextField(
        help_text="Made under Settings > Management keys at OpenRouter; an inference key can't read statements."
    )
    active = models.BooleanField(default=True)
    last_collected_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)

    class Meta:
        app_label = "spendwatch_collectors"
        ordering = ("name",)
        verbose_name = "OpenRouter account"

    def __str__(self) -> str:
        return self.name


class GenerationLookup(models.Model):
    """When a generation is asked for again: OpenRouter knows it only a while after its call."""

    generation_id = models.CharField(max_length=200, unique=True)
    first_at = models.DateTimeField()
    next_at = models.DateTimeField(null=True, help_text="None: given up.")
    attempts = models.PositiveIntegerField(default=0)

    class Meta:
        app_label = "spendwatch_collectors"

    def __str__(self) -> str:
        return self.generation_id
