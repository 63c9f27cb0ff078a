"""The collector's own connection to ClickHouse leads to the tests' store."""

import pytest
from pytest_django.fixtures import Settings

from spendwatch.clickhouse.client import Connection


@pytest.fixture
def store(clickhouse: Connection, migrated_store_dsn: str, settings: Settings) -> Connection:
    """An empty ClickHouse, and the settings that lead to it."""
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    return clickhouse
