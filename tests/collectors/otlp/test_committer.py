"""Group commit against a ClickHouse that is scripted to be slow, away, or choosy."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from collectors.otlp.committer import BusyError, Committer
from collectors.otlp.metrics import Metrics
from spendwatch.calls import CostBasis, PricedCall
from spendwatch.clickhouse.batch import Batch
from spendwatch.errors import StoreError
from tests.collectors.otlp.test_call import WHOLE


def calls(*names: str) -> Batch:
    return Batch(
        [
            PricedCall(call=replace(WHOLE, response_id=name), effective_cost=Decimal(1), cost_basis=CostBasis.REPORTED)
            for name in names
        ]
    )


class Store:
    """Takes calls; `refuses` decides which, `gate` when."""

    def __init__(self, refuses: Callable[[str], Exception | None] = lambda name: None) -> None:
        self.refuses = refuses
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.inserts: list[list[str]] = []

    def insert(self, batch: Batch) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        names = [str(call.call.response_id) for call in batch.objects()]
        for name in names:
            fault = self.refuses(name)
            if fault is not None:
                raise fault
        self.inserts.append(names)

    @property
    def stored(self) -> list[str]:
        return sorted(name for batch in self.inserts for name in batch)


def run(store: Store, scenario: Callable[[Committer], Any], **how: Any) -> tuple[Any, Metrics]:
    metrics = Metrics()

    async def main() -> Any:
        committer = Committer(store.insert, metrics, **how)
        try:
            return await scenario(committer)
        finally:
            store.gate.set()
            await committer.stop()

    return asyncio.run(main()), metrics


def test_requests_that_arrive_while_an_insert_runs_share_the_next_one() -> None:
    store = Store()
    store.gate.clear()

    async def scenario(committer: Committer) -> list[list[str]]:
        first = asyncio.create_task(committer.commit(calls("first"), timeout_s=30))
        await asyncio.to_thread(store.entered.wait, 30)
        others = [asyncio.create_task(committer.commit(calls(f"c{n}"), timeout_s=30)) for n in range(50)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in (first, *others))
        store.gate.set()
        return await asyncio.gather(first, *others)

    answers, metrics = run(store, scenario)
    assert answers == [[]] * 51
    assert [len(batch) for batch in store.inserts] == [1, 50]
    assert (metrics.inserts, metrics.stored, metrics.queue_calls) == (2, 51, 0)


def test_a_group_is_bounded_but_a_request_stays_whole() -> None:
    store = Store()

    async def scenario(committer: Committer) -> None:
        await asyncio.gather(
            *(committer.commit(calls(f"{n}a", f"{n}b"), timeout_s=30) for n in range(5)),
            committer.commit(calls(*(f"big{n}" for n in range(7))), timeout_s=30),
        )

    run(store, scenario, max_group=4)
    assert [len(batch) for batch in store.inserts] == [4, 4, 2, 7]


def test_a_store_that_is_away_is_told_to_every_request_of_the_group_and_to_no_later_one() -> None:
    away = True
    store = Store(lambda name: StoreError("away") if away else None)

    async def scenario(committer: Committer) -> tuple[list[object], list[str]]:
        nonlocal away
        failed = await asyncio.gather(
            *(committer.commit(calls(f"c{n}"), timeout_s=30) for n in range(3)), return_exceptions=True
        )
        away = False
        return failed, await committer.commit(calls("c0"), timeout_s=30)

    (failed, later), metrics = run(store, scenario)
    assert [type(fault) for fault in failed] == [StoreError] * 3
    assert later == []
    assert store.stored == ["c0"]
    assert (metrics.stored, metrics.turned_away) == (1, 3)


@pytest.mark.parametrize("fault", [StoreError("bad value", permanent=True), ValueError("bad value")])
def test_a_call_that_cannot_be_stored_does_not_spoil_the_group(fault: Exception) -> None:
    store = Store(lambda name: fault if name == "bad" else None)

    async def scenario(committer: Committer) -> list[list[str]]:
        return await asyncio.gather(
            committer.commit(calls("a", "b"), timeout_s=30),
            committer.commit(calls("c", "bad", "d", "e"), timeout_s=30),
            committer.commit(calls("f"), timeout_s=30),
        )

    answers, metrics = run(store, scenario)
    assert answers == [[], ["a call that can't be stored: bad value"], []]
    assert sorted(set(store.stored)) == ["a", "b", "c", "d", "e", "f"]
    assert store.stored == sorted(set(store.stored))
    assert metrics.stored == 6


def test_a_store_that_refuses_everything_loses_nobodys_calls() -> None:
    store = Store(lambda name: StoreError("no such table", permanent=True))

    async def scenario(committer: Committer) -> list[object]:
        return await asyncio.gather(
            committer.commit(calls("a"), timeout_s=30),
            committer.commit(calls(*(f"c{n}" for n in range(1000))), timeout_s=30),
            return_exceptions=True,
        )

    answers, _ = run(store, scenario)
    assert [type(answer) for answer in answers] == [StoreError, StoreError]


def test_a_full_queue_turns_requests_away() -> None:
    store = Store()
    store.gate.clear()

    async def scenario(committer: Committer) -> list[str]:
        running = asyncio.create_task(committer.commit(calls("running"), timeout_s=30))
        await asyncio.to_thread(store.entered.wait, 30)
        waiting = asyncio.create_task(committer.commit(calls("a", "b", "c"), timeout_s=30))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await committer.commit(calls("d", "e"), timeout_s=30)
        store.gate.set()
        await asyncio.gather(running, waiting)
        return await committer.commit(calls("d", "e"), timeout_s=30)

    answer, _ = run(store, scenario, max_waiting=4)
    assert answer == []
    assert store.stored == ["a", "b", "c", "d", "e", "running"]


def test_a_request_that_waited_too_long_leaves_the_queue() -> None:
    store = Store()
    store.gate.clear()

    async def scenario(committer: Committer) -> None:
        running = asyncio.create_task(committer.commit(calls("running"), timeout_s=30))
        await asyncio.to_thread(store.entered.wait, 30)
        with pytest.raises(TimeoutError):
            await committer.commit(calls("late"), timeout_s=0.01)
        store.gate.set()
        await running

    _, metrics = run(store, scenario)
    assert store.stored == ["running"]
    assert metrics.queue_calls == 0


def test_stopping_commits_what_is_queued() -> None:
    store = Store()
    store.gate.clear()

    async def scenario(committer: Committer) -> list[list[str]]:
        tasks = [asyncio.create_task(committer.commit(calls(f"c{n}"), timeout_s=30)) for n in range(3)]
        await asyncio.to_thread(store.entered.wait, 30)
        stop = asyncio.create_task(committer.stop())
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError):
            await committer.commit(calls("new"), timeout_s=30)
        store.gate.set()
        await stop
        return await asyncio.gather(*tasks)

    answers, _ = run(store, scenario)
    assert answers == [[], [], []]
    assert store.stored == ["c0", "c1", "c2"]


def test_a_fault_of_our_own_ends_no_committer() -> None:
    faults = [RuntimeError("bug")]
    store = Store(lambda name: faults.pop() if faults else None)

    async def scenario(committer: Committer) -> list[str]:
        with pytest.raises(StoreError, match="fault in the collector"):
            await committer.commit(calls("a"), timeout_s=30)
        return await committer.commit(calls("a"), timeout_s=30)

    answer, _ = run(store, scenario)
    assert answer == []
    assert store.stored == ["a"]
