"""A project whose calls are imported, and the commands pointed at the real store."""

from typing import Any

import pytest

from collectors.models import Project
from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp.conftest import make_collector

__all__ = ["make_collector", "project"]


@pytest.fixture
def project(clickhouse: Connection, migrated_store_dsn: str, transactional_db: None, settings: Any) -> str:
    """Its slug; everything is imported into the store of this test process."""
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    return Project.objects.create(slug="history", name="History").slug
