"""The app "alerts": judgements going out."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Registered as spendwatch_alerts, so that no customer's app of the same folder name clashes."""

    name = "alerts"
    label = "spendwatch_alerts"
    verbose_name = "Alerts"
    default_auto_field = "django.db.models.BigAutoField"
