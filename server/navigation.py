"""How the admin looks and what its sidebar lists. The rooms' models are named by string; none is imported.

Invariant: an entry stands in the sidebar only for a page that is registered and that the person may see.
Never here: what a page shows.
"""

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Spend", (("Calls", "spendwatch_server.call", "swap_vert"),)),
    (
        "Proof",
        (
            ("Statements", "spendwatch_ledger.statement", "receipt_long"),
            ("Reconciliations", "spendwatch_ledger.reconciliation", "balance"),
            ("Variances", "spendwatch_ledger.variance", "difference"),
            ("Adjustments", "spendwatch_ledger.adjustment", "tune"),
        ),
    ),
    (
        "Budgets & alerts",
        (
            ("Budgets", "spendwatch_alerts.budget", "savings"),
            ("Incidents", "spendwatch_alerts.incident", "notifications_active"),
            ("Channels", "spendwatch_alerts.channel", "forum"),
            ("Deliveries", "spendwatch_alerts.delivery", "outgoing_mail"),
        ),
    ),
    (
        "Set-up",
        (
            ("Projects", "spendwatch_collectors.project", "folder"),
            ("Tokens", "spendwatch_collectors.ingesttoken", "key"),
            ("OpenRouter accounts", "spendwatch_collectors.openrouteraccount", "account_balance_wallet"),
            ("Users", "auth.user", "person"),
            ("Groups", "auth.group", "group"),
            ("Schedule", "django_celery_beat.periodictask", "schedule"),
        ),
    ),
)
"""Title -> entries: title, app label.model name, symbol."""


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar's groups for the person who asks."""
    from django.contrib import admin

    registered = {
        f"{model._meta.app_label}.{model._meta.model_name}": page for model, page in admin.site._registry.items()
    }
    groups: list[dict[str, Any]] = []
    for title, entries in GROUPS:
        items = [
            {
                "title": entry,
                "icon": icon,
                "link": reverse("admin:{}_{}_changelist".format(*name.split("."))),
            }
            for entry, name, icon in entries
            if name in registered and registered[name].has_view_permission(request)
        ]
        groups.append({"title": title, "separator": bool(groups), "items": items})
    groups[0]["items"].insert(0, {"title": "Start", "icon": "monitoring", "link": reverse("admin:index")})
    return [group for group in groups if group["items"]]


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Spendwatch",
    "SITE_HEADER": "Spendwatch",
    "SITE_SUBHEADER": "The LLM bill you can prove",
    "SITE_SYMBOL": "query_stats",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda _request: static("server/favicon.svg")},
    ],
    "STYLES": [lambda _request: static("server/spendwatch.css")],
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "COLORS": {
        "primary": {
            "50": "oklch(97.7% .017 200)",
            "100": "oklch(94.8% .035 200)",
            "200": "oklch(90.2% .06 200)",
            "300": "oklch(82.5% .095 202)",
            "400": "oklch(71.5% .115 206)",
            "500": "oklch(60.9% .115 210)",
            "600": "oklch(51.0% .1 214)",
            "700": "oklch(44.4% .085 217)",
            "800": "oklch(38.5% .07 219)",
            "900": "oklch(33.5% .057 221)",
            "950": "oklch(25.5% .048 222)",
        },
    },
    "SIDEBAR": {"show_search": False, "show_all_applications": False, "navigation": sidebar},
}
"""The settings of the admin's skin."""
