"""How far an import has come. A row is written after its calls are stored, so what it says is never ahead of them."""

from django.db import models


class Import(models.Model):
    """One source that was, or is being, imported. Running it again goes on where this says."""

    source = models.CharField(max_length=500, unique=True, editable=False)
    version = models.CharField(max_length=64, editable=False, help_text="Another version of a file starts anew.")
    project = models.CharField(max_length=64, editable=False)
    position = models.JSONField(null=True, editable=False)
    accepted = models.PositiveBigIntegerField(default=0, editable=False)
    rejected = models.PositiveBigIntegerField(default=0, editable=False)
    rejects_bytes = models.PositiveBigIntegerField(default=0, editable=False)
    started_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-updated_at",)

    def __str__(self) -> str:
        return self.source
