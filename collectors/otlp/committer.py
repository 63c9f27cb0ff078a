"""Group commit: the calls of many requests in one insert, and no answer before it is done.

An insert costs ClickHouse the same 10-30 ms for one row as for thousands, so one committer gathers what arrives while
it is busy. Invariants: a request is told "stored" only after the insert that holds its calls returned; one that was
told to come back loses nothing by it; calls that ClickHouse will never take don't stand in the way of others.
Never here: HTTP, decoding.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from collectors.otlp.metrics import Metrics
from spendwatch.calls import PricedCall
from spendwatch.clickhouse.batch import Batch
from spendwatch.errors import StoreError

log = logging.getLogger("spendwatch.collectors.otlp")

Insert = Callable[[Batch], None]

_FAULTS = (StoreError, ValueError, TypeError, OverflowError, ArithmeticError)
_COMPLAIN_EVERY_S = 10.0
_TRIES = 100
"""Refused inserts spent on finding the calls at fault: one among 8,192 takes 14."""


class BusyError(Exception):
    """The queue is full."""


@dataclass(slots=True, eq=False)
class _Request:
    batch: Batch
    done: "asyncio.Future[list[str]]"
    taken: bool = False
    """Out of the queue: its group is being committed, or was."""
    refused: list[str] = field(default_factory=list)
    error: StoreError | None = None


class Committer:
    """One task and one thread that commit what is put in."""

    def __init__(
        self,
        insert: Insert,
        metrics: Metrics,
        *,
        max_group: int = 8192,
        max_waiting: int = 100_000,
        gather_s: float = 0.005,
    ) -> None:
        """insert: writes all the calls or raises. max_group: calls of one insert, unless one request has more.
        max_waiting: calls in the queue. gather_s: how long an idle committer waits for company."""
        self._insert = insert
        self._metrics = metrics
        self._max_group = max_group
        self._max_waiting = max_waiting
        self._gather_s = gather_s
        self._queue: deque[_Request] = deque()
        self._queued = 0
        self._arrived = asyncio.Event()
        self._stopping = False
        self._complained_at = -_COMPLAIN_EVERY_S
        self._turned_away = 0
        self._thread = ThreadPoolExecutor(1, "commit")
        self._task = asyncio.create_task(self._run())

    async def commit(self, batch: Batch, *, timeout_s: float) -> list[str]:
        """Return when the calls are stored: the reasons of those that never can be, else nothing.

        Raises BusyError when the queue is full, StoreError when ClickHouse did not take them, TimeoutError when it
        takes longer than timeout_s. After these two they may be stored or not: sending them again changes nothing.
        """
        if self._stopping or self._queued + len(batch) > max(self._max_waiting, len(batch)):
            raise BusyError
        request = _Request(batch, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._count(len(batch))
        self._arrived.set()
        try:
            return await asyncio.wait_for(request.done, timeout_s)
        finally:
            if not request.taken:
                self._queue.remove(request)
                self._count(-len(batch))

    def _count(self, calls: int) -> None:
        self._queued += calls
        self._metrics.queue_calls = self._queued

    async def stop(self) -> None:
        """Commit what is queued, then end."""
        self._stopping = True
        self._arrived.set()
        await self._task
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                if self._stopping:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(self._gather_s)
            group = self._take()
            if not group:
                continue
            started = time.monotonic()
            try:
                inserts = await loop.run_in_executor(self._thread, self._store, group)
            except Exception:
                # A fault of ours must not end the committer: the senders keep their spans and come back.
                log.exception("a group of %d requests could not be committed", len(group))
                for request in group:
                    request.error = StoreError("expected to commit, found a fault in the collector; its log has it.")
                inserts = 0
            self._metrics.inserts += inserts
            self._metrics.insert_seconds += time.monotonic() - started if inserts else 0.0
            for request in group:
                self._answer(request)

    def _take(self) -> list[_Request]:
        group: list[_Request] = []
        size = 0
        while self._queue and (not group or size + len(self._queue[0].batch) <= self._max_group):
            request = self._queue.popleft()
            request.taken = True
            self._count(-len(request.batch))
            if not request.done.done():
                group.append(request)
                size += len(request.batch)
        return group

    def _answer(self, request: _Request) -> None:
        if request.error is not None:
            self._metrics.turned_away += 1
            self._complain(request.error)
        else:
            self._metrics.stored += len(request.batch) - len(request.refused)
            self._metrics.unpriced += request.batch.unpriced
        if request.done.done():
            return
        if request.error is not None:
            request.done.set_exception(request.error)
        else:
            request.done.set_result(request.refused)

    def _complain(self, error: StoreError) -> None:
        """Log why calls are turned away; during an outage once every few seconds, not for each of thousands."""
        now = time.monotonic()
        self._turned_away += 1
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            log.warning("%d requests could not be committed: %s", self._turned_away, error)
            self._complained_at, self._turned_away = now, 0

    def _store(self, group: list[_Request]) -> int:
        """Insert the group (in the thread), and fill in each request's `refused` or `error`. Returns the inserts."""
        try:
            self._insert(Batch.join([request.batch for request in group]))
            return 1
        except _FAULTS as error:
            if isinstance(error, StoreError) and not error.permanent:
                for request in group:
                    request.error = error
                return 0
            return self._separate(group, error)

    def _separate(self, group: list[_Request], first: Exception) -> int:
        """Find the calls that spoil the group: they don't fit the columns, or ClickHouse refuses them for good.

        A refusal that hits everything (no table, wrong password) is not the calls' fault: then nothing is given up
        and everybody comes back.
        """
        log.warning("an insert of %d requests was refused, trying its parts: %s", len(group), first)
        inserts, tries = 0, _TRIES
        spoilt: list[tuple[_Request, Exception]] = []
        for request in group:
            parts: list[Sequence[PricedCall]] = [request.batch.objects()]
            while parts and request.error is None:
                part = parts.pop()
                try:
                    self._insert(Batch(list(part)))
                    inserts += 1
                    continue
                except _FAULTS as error:
                    fault: Exception = error
                tries -= 1
                passing = isinstance(fault, StoreError) and not fault.permanent
                if passing or tries < 0:
                    request.error = StoreError(str(fault), retry_after_s=1)
                elif len(part) > 1:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                else:
                    spoilt.append((request, fault))
        for request, reason in spoilt:
            if isinstance(reason, StoreError) and not inserts:
                request.error = reason
            else:
                request.refused.append(f"a call that can't be stored: {reason}")
        return inserts
