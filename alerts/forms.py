"""The forms of budgets and channels: lists are typed as people write them, and checked before they are saved.

A channel's secret can be written but not read: an empty field keeps the one that is there. Never here: rendering.
"""

from typing import Any, ClassVar
from zoneinfo import available_timezones

from django import forms
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from alerts.models import Budget, Channel
from spendwatch.calls import DIMENSIONS, check_scope


class BudgetForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only in the stubs
    """A budget. The scope is typed as lines "team: search, shop", the thresholds as "50, 80, 100"."""

    scope_lines = forms.CharField(
        label="Only calls with",
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4, "placeholder": "team: search, shop\nagent: crawler"}),
        help_text="One line each: a name, a colon, the accepted values. All lines must hold. Empty: every call. "
        f"Names: {', '.join(DIMENSIONS)}.",
    )
    thresholds_text = forms.CharField(
        label="Tell at",
        initial="50, 80, 100",
        widget=UnfoldAdminTextInputWidget(),
        help_text="Percent of the amount, separated by commas. Each is told once per period.",
    )

    class Meta:
        model = Budget
        fields = ("name", "amount", "active", "period", "time_zone", "hours", "channel")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.fields["scope_lines"].initial = scope_lines(self.instance.scope)
            self.fields["thresholds_text"].initial = ", ".join(map(str, self.instance.thresholds))

    def clean_scope_lines(self) -> dict[str, list[str]]:
        """The lines as a scope."""
        scope: dict[str, list[str]] = {}
        for line in self.cleaned_data["scope_lines"].splitlines():
            if not line.strip():
                continue
            name, colon, values = line.partition(":")
            name, found = name.strip(), [value.strip() for value in values.split(",") if value.strip()]
            if not colon or not found:
                raise forms.ValidationError(f'Expected a line such as "team: search, shop", found "{line.strip()}".')
            if name in scope:
                raise forms.ValidationError(f'"{name}" stands on two lines; put its values on one.')
            scope[name] = found
        try:
            check_scope(scope)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        return scope

    def clean_thresholds_text(self) -> list[int]:
        """The thresholds as whole numbers."""
        text = self.cleaned_data["thresholds_text"].replace("%", "")
        try:
            found = sorted({int(part) for part in text.split(",") if part.strip()})
        except ValueError:
            found = []
        if not found or found[0] < 1 or found[-1] > 1000:
            raise forms.ValidationError("Expected whole percentages from 1 to 1000, such as 50, 80, 100.")
        return found

    def clean_time_zone(self) -> str:
        """A name of the time zone database."""
        name = str(self.cleaned_data["time_zone"])
        if name not in available_timezones():
            raise forms.ValidationError(f'Expected a time zone such as Europe/Berlin, found "{name}".')
        return name

    def _post_clean(self) -> None:
        # Before the model checks itself, so that it checks what was typed.
        self.instance.scope = self.cleaned_data.get("scope_lines", {})
        self.instance.thresholds = self.cleaned_data.get("thresholds_text", [100])
        super()._post_clean()  # type: ignore[misc]  # Django's own hook, not in the stubs


def scope_lines(scope: dict[str, list[str]]) -> str:
    """A scope as the form shows it."""
    return "\n".join(f"{name}: {', '.join(values)}" for name, values in sorted(scope.items()))


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]  # as above
    """A channel. Its secret is never sent to the browser."""

    secret = forms.CharField(
        required=False,
        strip=True,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text="Incoming webhook: its URL. Bot: its token (xoxb-…). Kept encrypted and never shown again; "
        "leave empty to keep the one that is saved.",
    )

    class Meta:
        model = Channel
        fields: ClassVar = ("name", "kind", "secret", "slack_channel", "base_url", "tells_loops", "active")

    def clean_secret(self) -> str:
        """What was typed, else what is saved."""
        typed = str(self.cleaned_data["secret"])
        if not typed and not self.instance.pk:
            raise forms.ValidationError("A channel needs its secret.")
        return typed or str(self.instance.secret)
