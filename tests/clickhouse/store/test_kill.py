"""kill -9 of the store again and again while writers send and retry: no acknowledged call is lost, none counts twice.

SPENDWATCH_TEST_KILLS says how often (`make test-crash`: 100).
"""

import os
import random
import threading
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spendwatch.clickhouse import hourly, queries, rollup, rows
from spendwatch.clickhouse.client import connect
from spendwatch.clickhouse.migrate import migrate
from spendwatch.errors import StoreError
from tests.clickhouse.builders import MONTH, RECEIVED, a_call, total
from tests.fixtures.store import start_store

KILLS = int(os.environ.get("SPENDWATCH_TEST_KILLS", "3"))
WRITERS, SIZE = 2, 20


class Writer(threading.Thread):
    """Sends batches of its own calls; each until the store has said that it has it."""

    def __init__(self, number: int, dsn: str, stop: threading.Event) -> None:
        super().__init__(name=f"writer-{number}")
        self._number = number
        self._dsn = dsn
        self._stop_asked = stop
        self.acknowledged = 0
        self.sending = False

    def calls(self, batch: int) -> range:
        """The numbers of the calls of a batch; no two writers have one in common."""
        first = 1 + (batch * WRITERS + self._number) * SIZE
        return range(first, first + SIZE)

    def run(self) -> None:
        while not self._stop_asked.is_set():
            batch = [a_call(n) for n in self.calls(self.acknowledged)]
            self.sending = True
            while True:
                try:
                    with connect(self._dsn, caller=self.name) as ch:
                        rows.insert(ch, batch, received_at=RECEIVED)
                    break
                except StoreError:
                    time.sleep(0.05)
            self.sending = False
            self.acknowledged += 1


@pytest.mark.slow
def test_a_store_killed_again_and_again_loses_no_acknowledged_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    chance = random.Random(4)
    store = start_store(tmp_path)
    port = urlsplit(store.url).port or 0
    with connect(store.dsn, caller="tests") as ch:
        migrate(ch)
    stop = threading.Event()
    writers = [Writer(number, store.dsn, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    hits = 0
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.3))
            with suppress(StoreError), connect(store.dsn, caller="tests") as ch:
                rollup.roll(ch)
            acknowledged = [writer.acknowledged for writer in writers]
            hits += any(writer.sending for writer in writers)
            with store.process:
                store.process.kill()
            store = start_store(tmp_path, port=port)
            with connect(store.dsn, caller="tests") as ch:
                ((found,),) = ch.query("count", "SELECT count() FROM llm_calls FINAL")
            assert found >= sum(acknowledged) * SIZE
    finally:
        stop.set()
        for writer in writers:
            writer.join(timeout=60)
    assert not any(writer.is_alive() for writer in writers)
    # The client repeats by itself what a broken connection cut off: a kill hit whoever had a batch on its way.
    assert hits >= KILLS / 2, "the kills did not hit the writers"
    sent = [a_call(n) for writer in writers for batch in range(writer.acknowledged) for n in writer.calls(batch)]
    with store.process, connect(store.dsn, caller="tests") as ch:
        rollup.roll(ch)
        spend = queries.spend(ch, {}, MONTH)
        ((count, cost),) = ch.query("raw", "SELECT count(), sum(effective_cost) FROM llm_calls FINAL")
        ((summed, summed_cost),) = ch.query(
            "sums", "SELECT sum(calls), sum(effective_cost) FROM llm_calls_hourly_newest"
        )
        truth: tuple[int, Decimal] = (len(sent), total(sent))
        assert (spend.calls, spend.cost) == (count, cost) == (summed, summed_cost) == truth
        store.stop()
