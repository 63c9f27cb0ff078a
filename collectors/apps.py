"""The app "collectors": facts coming in."""

from django.apps import AppConfig


class CollectorsConfig(AppConfig):
    """Registered as spendwatch_collectors, so that no customer's app of the same folder name clashes."""

    name = "collectors"
    label = "spendwatch_collectors"
    verbose_name = "Collectors"
    default_auto_field = "django.db.models.BigAutoField"
