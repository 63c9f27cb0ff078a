"""The app "server": the pages, commands and set-up that belong to no single room."""

from django.apps import AppConfig


class ServerConfig(AppConfig):
    """Stands before unfold in INSTALLED_APPS: its templates must be found first."""

    name = "server"
    label = "spendwatch_server"
    verbose_name = "Spendwatch"
    default_auto_field = "django.db.models.BigAutoField"
