"""kill -9 of the store in the middle of traffic: whoever wasn't answered sends again, and the totals are exact."""

import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spendwatch.calls import PricedCall, Tags
from spendwatch.clickhouse import hourly, queries, rollup, rows
from spendwatch.clickhouse.client import connect
from spendwatch.clickhouse.migrate import migrate
from spendwatch.errors import StoreError
from tests.clickhouse.builders import MONTH, RECEIVED, a_call, total
from tests.fixtures.store import RunningStore, start_store

SIZE = 40


def batch(number: int) -> list[PricedCall]:
    """SDK calls, and in every other batch Broadcast's view of the batch before."""
    if number % 2:
        before = batch(number - 1)
        return [a_call(int(call.call.trace_id, 16), source="broadcast", tags=Tags()) for call in before]
    return [a_call(number * SIZE + n + 1) for n in range(SIZE)]


def send_until_answered(dsn: str, calls: list[PricedCall], gone: threading.Event) -> None:
    """What an ingest does: keep the batch until the store has said that it has it."""
    while True:
        try:
            with connect(dsn, caller="writer") as ch:
                rows.insert(ch, calls, received_at=RECEIVED)
                return
        except StoreError:
            gone.set()
            time.sleep(0.1)


@pytest.mark.slow
def test_a_store_killed_during_inserts_and_rolls_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hourly, "SETTLING_S", 0)
    store = start_store(tmp_path)
    port = urlsplit(store.url).port or 0
    with connect(store.dsn, caller="tests") as ch:
        migrate(ch)
    answered = threading.Semaphore(0)
    gone, enough = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    written = 0

    def write() -> None:
        nonlocal written
        try:
            # On and on, so that there is always a batch on its way when the store goes; whole pairs of them.
            while not enough.is_set() or written % 2:
                send_until_answered(store.dsn, batch(written), gone)
                written += 1
                answered.release()
        except BaseException as error:
            failures.append(error)
            raise

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2):
        for _ in range(6):
            assert answered.acquire(timeout=60)
        with connect(store.dsn, caller="tests") as ch:
            rollup.roll(ch)
        store = killed_and_restarted(store, tmp_path, port, gone)
    enough.set()
    writer.join(timeout=120)
    assert not writer.is_alive()
    assert failures == []
    with store.process, connect(store.dsn, caller="tests") as ch:
        rollup.roll(ch)
        sent = [call for number in range(0, written, 2) for call in batch(number)]
        spend = queries.spend(ch, {}, MONTH)
        assert (spend.calls, spend.cost) == (len(sent), total(sent))
        raw = ch.query("raw", "SELECT count(), sum(effective_cost) FROM llm_calls FINAL")
        assert raw == [(spend.calls, spend.cost)]
        assert {row.key for row in queries.spend_by(ch, ["team"], {}, MONTH)} == {("search",)}
        store.stop()


def killed_and_restarted(store: RunningStore, folder: Path, port: int, gone: threading.Event) -> RunningStore:
    """A new process on the same data and port, once the writer has met the store's absence."""
    gone.clear()
    with store.process:
        store.process.kill()
    assert gone.wait(timeout=60), "no batch was on its way while the store was away"
    return start_store(folder, port=port)
