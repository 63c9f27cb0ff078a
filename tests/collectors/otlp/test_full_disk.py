"""A full disk under the store: senders are told to come back and lose nothing by it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from collectors.models import IngestToken, Project
from collectors.otlp.bulk.reader import MIN_SPANS
from collectors.otlp.ingest import Ingest
from collectors.otlp.limits import Limits
from spendwatch.calls import LLMCall
from spendwatch.clickhouse.client import connect
from tests.clickhouse.store.test_full_disk import fill, small_disk, small_store, stored
from tests.collectors.otlp.conftest import Collector, serving, status_message
from tests.collectors.otlp.test_call import WHOLE
from tests.fixtures.store import RunningStore

__all__ = ["small_disk", "small_store"]

pytestmark = pytest.mark.needs("tmpfs")


def calls(first: int, count: int) -> list[LLMCall]:
    now = datetime.now(UTC)
    return [
        replace(WHOLE, started_at=now, span_id=f"{number:016x}", response_id=f"gen-{number}")
        for number in range(first, first + count)
    ]


@pytest.fixture
def collector(small_store: RunningStore, transactional_db: None, settings: Any) -> Any:
    settings.SPENDWATCH_CLICKHOUSE_DSN = small_store.dsn
    project, _ = Project.objects.get_or_create(slug="shop", defaults={"name": "Shop"})
    _, secret = IngestToken.issue(project, "tests")
    app = Ingest(Limits(commit_s=100))
    with serving(app) as url, httpx2.Client(timeout=120) as http:
        yield Collector(url, app, secret, "shop", http)


@pytest.mark.parametrize("count", [1, 2 * MIN_SPANS], ids=["one by one", "together"])
def test_what_finds_no_room_is_kept_by_its_sender_and_stored_once(
    collector: Collector, small_store: RunningStore, count: int
) -> None:
    first, second = calls(1, count), calls(1001, count)
    assert collector.send(first).status_code == 200
    filler = small_store.folder / "filler"
    fill(filler)
    for _ in range(2):
        refused = collector.send(second)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "send them again" in status_message(refused)[1]
    with connect(small_store.dsn, caller="tests") as ch:
        assert stored(ch) == count
        filler.unlink()
        assert collector.send(second).status_code == 200
        assert collector.send(second).status_code == 200
        assert stored(ch) == 2 * count
