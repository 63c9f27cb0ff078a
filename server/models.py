"""The one name the admin needs for what is not in the Django database: a call, which lives in ClickHouse.

Call has no table and no rows here; it gives the calls' pages their addresses and permissions (view, export). Facts
about calls come from spendwatch.clickhouse.queries. Never here: data.
"""

from django.db import models


class Call(models.Model):
    """A stand-in for the admin: one LLM call."""

    class Meta:
        managed = False
        default_permissions = ("view", "export")
        verbose_name = "call"
        verbose_name_plural = "calls"
