"""The app "server": the pages, commands and set-up that belong to no single room."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.db.models.signals import post_migrate


class ServerConfig(AppConfig):
    """Stands before unfold in INSTALLED_APPS: its templates must be found first."""

    name = "server"
    label = "spendwatch_server"
    verbose_name = "Spendwatch"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and the groups that every migration run leaves in place."""
        from server import checks as checks
        from server.roles import make_groups

        post_migrate.connect(make_groups, dispatch_uid="spendwatch.roles")


class SpendwatchAdminConfig(AdminConfig):
    """The admin, with our site as the one that admin.register() registers on."""

    default_site = "server.site.SpendwatchAdminSite"
