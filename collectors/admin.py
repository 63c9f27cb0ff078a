"""The pages for projects and their tokens. A token's secret is shown once, in the message after it was issued."""

# ruff: noqa: ARG002  # the signatures are Django's

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from collectors.models import IngestToken, Project
from collectors.openrouter.admin import OpenRouterAccountAdmin

__all__ = ["IngestTokenAdmin", "OpenRouterAccountAdmin", "ProjectAdmin"]


@admin.register(Project)
class ProjectAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Projects; the slug can be typed once."""

    list_display = ("slug", "name", "created_at")
    search_fields = ("slug", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> tuple[str, ...]:
        return ("created_at",) if obj is None else ("slug", "created_at")


@admin.register(IngestToken)
class IngestTokenAdmin(ModelAdmin):  # type: ignore[misc]  # as above
    """Tokens: issued and revoked, never edited or deleted."""

    list_display = ("label", "project", "created_at", "last_used_at", "revoked_at")
    list_filter = ("project",)
    search_fields = ("label", "project__slug")
    autocomplete_fields = ("project",)
    readonly_fields = ("created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def get_readonly_fields(self, request: HttpRequest, obj: IngestToken | None = None) -> tuple[str, ...]:
        return self.readonly_fields if obj is None else ("project", *self.readonly_fields)

    def has_delete_permission(self, request: HttpRequest, obj: IngestToken | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: IngestToken, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=["label"])
            return
        issued, secret = IngestToken.issue(obj.project, obj.label)
        # The admin goes on with `obj`: it becomes the row that was just made.
        obj.__dict__.update(issued.__dict__)
        messages.warning(
            request, f"This is the only time the token is shown. Put it into the app as SPENDWATCH_TOKEN: {secret}"
        )

    @admin.action(description="Revoke the selected tokens", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[IngestToken]) -> None:
        for token in queryset:
            token.revoke()
        messages.success(request, "Revoked. Apps that still send with them are refused within ten seconds.")
