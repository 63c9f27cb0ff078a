"""The page of OpenRouter accounts. The management key goes in and never comes out."""

# ruff: noqa: ARG002  # the signatures are Django's

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.validators import RegexValidator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminPasswordWidget

from collectors.openrouter.collect import collect
from collectors.openrouter.models import OpenRouterAccount
from spendwatch.errors import CollectError, ReadError


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]  # generic for the type checker only
    """Empty means: keep the key that is there."""

    management_key = forms.CharField(
        required=False,
        strip=True,
        validators=[RegexValidator(r"^[!-~]+$", "A key has no spaces and only plain ASCII characters.")],
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
        help_text="Encrypted when saved and never shown again. Leave it empty to keep the present one.",
    )

    class Meta:
        model = OpenRouterAccount
        fields = ("name", "base_url", "management_key", "active")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._present = self.instance.management_key if self.instance.pk else ""
        # The form's initial values reach the page; a key must not be among them.
        self.initial.pop("management_key", None)

    def clean_management_key(self) -> str:
        """The new key, or the present one. Raises ValidationError when there is neither."""
        key = str(self.cleaned_data.get("management_key") or "") or self._present
        if not key:
            raise forms.ValidationError("A new account needs its management key.")
        return key


@admin.register(OpenRouterAccount)
class OpenRouterAccountAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Accounts: added, paused, collected now."""

    form = AccountForm
    list_display = ("name", "active", "base_url", "last_collected_at", "last_error")
    readonly_fields = ("last_collected_at", "last_error")
    actions = ("collect_now",)

    def get_readonly_fields(self, request: HttpRequest, obj: OpenRouterAccount | None = None) -> tuple[str, ...]:
        # Statements are filed under the name.
        return self.readonly_fields if obj is None else ("name", *self.readonly_fields)

    @admin.action(description="Collect now", permissions=["change"])
    def collect_now(self, request: HttpRequest, queryset: QuerySet[OpenRouterAccount]) -> None:
        for account in queryset:
            try:
                done = collect(account, now=timezone.now())
            except (CollectError, ReadError) as error:
                messages.error(request, str(error))
            else:
                messages.success(
                    request, f"{account.name}: {done.documents} new documents, {done.lines} new statement lines."
                )
