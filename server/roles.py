"""The four roles, as Django groups: viewer, finance, platform, owner.

viewer sees; finance also works the ledger and the budgets; platform also works tokens, accounts, alerts and the
schedule; owner does everything, people included. Each migration run makes the groups and gives them the permissions
below. It never takes one away, so an installation may grant more; for less, make another group. Never here: checks of
a permission.
"""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.management import create_permissions

EVERYTHING = ("*",)
VIEW = ("view",)
WORK = ("view", "add", "change", "*custom")
"""Everything but deleting."""

APPS = ("spendwatch_server", "spendwatch_ledger", "spendwatch_collectors", "spendwatch_alerts")

ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "viewer": dict.fromkeys(APPS, VIEW),
    "finance": {
        **dict.fromkeys(APPS, VIEW),
        "spendwatch_server": EVERYTHING,
        "spendwatch_ledger": WORK,
        "spendwatch_alerts": WORK,
    },
    "platform": {
        **dict.fromkeys(APPS, VIEW),
        "spendwatch_server": EVERYTHING,
        "spendwatch_collectors": EVERYTHING,
        "spendwatch_alerts": EVERYTHING,
        "django_celery_beat": EVERYTHING,
    },
    "owner": dict.fromkeys((*APPS, "django_celery_beat", "auth", "admin"), EVERYTHING),
}
"""Group -> app label -> what it may do with that app's models ("*": all, "*custom": permissions of the app's own)."""

_STANDARD = ("add", "change", "delete", "view")


def _granted(codename: str, actions: tuple[str, ...]) -> bool:
    action = codename.partition("_")[0]
    return "*" in actions or action in actions or ("*custom" in actions and action not in _STANDARD)


def make_groups(sender: AppConfig, using: str, **_: Any) -> None:
    """After the migration of one app: give each group its permissions on that app's models (signal post_migrate)."""
    if not any(sender.label in grants for grants in ROLES.values()):
        return
    from django.contrib.auth.models import Group, Permission

    # Django makes the permissions in a receiver of the same signal, which may come after this one.
    create_permissions(sender, verbosity=0, using=using)
    permissions = Permission.objects.using(using).filter(content_type__app_label=sender.label)
    for name, grants in ROLES.items():
        group, _made = Group.objects.using(using).get_or_create(name=name)
        actions = grants.get(sender.label, ())
        group.permissions.add(*[p for p in permissions if _granted(p.codename, actions)])
