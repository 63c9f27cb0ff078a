"""The pages' tests run against the real store: `spending` puts calls into it and points the settings at it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from spendwatch.calls import PricedCall
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.rollup import roll
from spendwatch.clickhouse.rows import insert


@pytest.fixture
def spending(clickhouse: Connection, migrated_store_dsn: str, settings: Any) -> Callable[..., None]:
    """Put calls into the store that the pages read; `rolled=True` also rolls them up."""
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn

    def put(*calls: PricedCall, rolled: bool = False) -> None:
        insert(clickhouse, calls, received_at=datetime.now(UTC))
        if rolled:
            roll(clickhouse)

    return put


@pytest.fixture
def client_of(db: None) -> Callable[[str], Client]:
    """A browser that is logged in as somebody of a role."""
    from django.contrib.auth.models import Group

    def of(role: str) -> Client:
        user = User.objects.create_user(f"a-{role}", password="not a password to guess", is_staff=True)
        if role != "nobody":
            user.groups.add(Group.objects.get(name=role))
        client = Client()
        client.force_login(user)
        return client

    return of
