"""The app "ledger": statements, reconciliation, adjustments."""

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """Registered as spendwatch_ledger, so that no customer's app of the same folder name clashes."""

    name = "ledger"
    label = "spendwatch_ledger"
    verbose_name = "Ledger"
    default_auto_field = "django.db.models.BigAutoField"
