"""The background thread that takes records from the spool to the server.

Invariant: a record is acknowledged in the spool only after the receiver answered 2xx for it (or has finally refused
that very record, which is counted in `lost` and said). The app's threads never wait for it, but in flush().
Never here: what a record holds.
"""

import logging
import random
import threading
import time
from typing import Protocol

from opentelemetry import context

from spendwatch import otlp
from spendwatch.exporter import Outcome, Verdict
from spendwatch.segments import Segment
from spendwatch.spool import Spool

log = logging.getLogger("spendwatch.exporter")

INTERVAL_S = 1.0
"""How long a first record waits for company."""
ADOPT_INTERVAL_S = 15.0
"""How often the folder is searched for what dead processes left."""
CHILDREN_INTERVAL_S = 2.0
"""The same where forked workers come and go, some too soon to send anything themselves."""
BATCH_BYTES = 1024 * 1024
BATCH_RECORDS = 512
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
REFUSED_BACKOFF_S = 60.0
SQUEEZE_INTERVAL_S = 10.0
"""How often, while a server takes nothing, what has gathered is made smaller."""
STOP_S = 0.3
"""How long the thread has to end of itself: a pass that waits for a server is left to its fate."""


class Target(Protocol):
    """What records are shipped to: an Exporter, or what stands in its place."""

    @property
    def address(self) -> str: ...
    def post(self, body: bytes) -> Outcome: ...
    def close(self) -> None: ...
    def after_fork(self) -> None: ...


class Shipper:
    """Ships one spool to one exporter."""

    def __init__(self, spool: Spool, exporter: Target) -> None:
        self.lost = 0
        self.watching = False
        """Whether forked children may have left something that this process is to send."""
        self._spool = spool
        self._exporter = exporter
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._reset()

    def _reset(self) -> None:
        self._waiting = False
        self._first = 0.0
        self._stopped = False
        self._asked = 0
        self._busy = False
        self._passes = 0
        self._due = 0.0
        self._failures = 0
        self._adopt_due = 0.0
        self._unwell: str | None = None

    def poke(self) -> None:
        """There is something to send. Cheap when that is known already."""
        if self._waiting:
            return
        self._waiting, self._first = True, time.monotonic()
        self._start()
        with self._condition:
            self._condition.notify_all()

    def watch(self) -> None:
        """Workers were forked that may end before they have sent what they recorded: look after what they leave."""
        if self._spool.folder is None or self._stopped:
            return
        if not self.watching:
            self.watching = True
            self._adopt_due = time.monotonic() + CHILDREN_INTERVAL_S
            with self._condition:
                self._condition.notify_all()
        self._start()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._run, name="spendwatch-shipper", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is ending; what is on disk goes with the next process
        self._thread = thread

    def flush(self, timeout_s: float, *, retry: bool = True) -> bool:
        """Send what is there now; True when all of it was taken in time. retry=False: one attempt only."""
        deadline = time.monotonic() + timeout_s
        pause = 0.1
        self._start()
        while True:
            if not self._one_pass(deadline):
                return False
            if not self._spool.pending():
                return True
            if not retry or time.monotonic() + pause >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _one_pass(self, deadline: float) -> bool:
        """Have the thread make one whole pass now; False when it didn't end in time."""
        with self._condition:
            # The pass under way may have read before the last record came: it doesn't count.
            goal = self._passes + (2 if self._busy else 1)
            self._asked += 1
            self._condition.notify_all()
            try:
                while self._passes < goal:
                    left = deadline - time.monotonic()
                    if left <= 0 or self._thread is None or not self._thread.is_alive():
                        return False
                    self._condition.wait(min(left, 0.5))
            finally:
                self._asked -= 1
        return True

    def stop(self) -> None:
        """End the thread after its present pass. Does not wait long: the app's process may be ending."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)
        if self._thread is None or not self._thread.is_alive():
            self._exporter.close()

    def after_fork(self) -> None:
        """In a forked child: no thread came along; the lock may be held by one that doesn't exist here."""
        self._condition = threading.Condition()
        self._thread = None
        self.lost = 0
        self.watching = False
        self._reset()
        self._exporter.after_fork()

    def _run(self) -> None:
        # Nothing this thread does is the app's doing; keep every other instrumentation out of it.
        context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
        condition = self._condition
        while True:
            with condition:
                self._wait(condition)
                if self._stopped or condition is not self._condition:
                    return
                forced = self._asked > 0
                self._busy = True
            try:
                self._pass(forced)
            except Exception as exc:
                log.exception("spendwatch could not send its records; trying again")
                self._later(None, f"{type(exc).__name__}")
            with condition:
                self._passes += 1
                self._busy = False
                condition.notify_all()

    def _wait(self, condition: threading.Condition) -> None:
        while not self._stopped and self._asked <= 0:
            if self._failures:
                until = self._due
            elif self._waiting:
                until = self._first + INTERVAL_S
            else:
                until = self._adopt_due
            now = time.monotonic()
            if now >= until:
                return
            condition.wait(min(until - now, SQUEEZE_INTERVAL_S))
            if self._failures and not self._stopped:
                condition.release()
                try:
                    self._spool.squeeze()
                finally:
                    condition.acquire()

    def _pass(self, forced: bool) -> None:
        self._waiting = False
        now = time.monotonic()
        if forced or now >= self._adopt_due:
            self._adopt_due = now + (CHILDREN_INTERVAL_S if self.watching else ADOPT_INTERVAL_S)
            self._spool.adopt()
        for segment in self._spool.segments():
            while (batch := self._spool.read(segment, BATCH_BYTES, BATCH_RECORDS)) is not None:
                if batch.records and not self._send(segment, batch.records):
                    return
                self._spool.ack(segment, batch.upto)
        if self._unwell is not None:
            log.info("spendwatch: the server takes calls again")
        self._failures, self._due, self._unwell = 0, 0.0, None

    def _send(self, segment: Segment, records: list[bytes]) -> bool:
        """True when the fate of every record is settled; False: keep them, try later."""
        outcome = self._exporter.post(otlp.body(segment.head, records))
        if outcome.verdict is Verdict.ACCEPTED:
            if outcome.rejected:
                self.lost += outcome.rejected
                log.warning("spendwatch: the server did not take %d call(s): %s", outcome.rejected, outcome.text)
            return True
        if outcome.verdict is Verdict.SMALLER:
            if len(records) > 1:
                middle = len(records) // 2
                return self._send(segment, records[:middle]) and self._send(segment, records[middle:])
            self.lost += 1
            log.warning("spendwatch: the server refused a call for good (%s); it is dropped", outcome.text)
            return True
        if outcome.verdict is Verdict.REFUSED:
            self._say_refused(outcome.text)
            self._later(REFUSED_BACKOFF_S, outcome.text)
        else:
            self._say_unreachable(outcome.text)
            self._later(outcome.retry_after_s, outcome.text)
        return False

    def _later(self, after_s: float | None, text: str) -> None:
        if after_s is None:
            # Half of it by chance, so that a thousand processes don't come back in the same instant.
            pause = min(FIRST_BACKOFF_S * 2**self._failures, MAX_BACKOFF_S)
            after_s = pause * (0.5 + random.random() / 2)  # noqa: S311
        self._failures = min(self._failures + 1, 16)
        self._due = time.monotonic() + after_s
        self._unwell = text

    def _where(self) -> str:
        return f"in {self._spool.folder}" if self._spool.folder is not None else "in memory"

    def _say_refused(self, text: str) -> None:
        if self._unwell == text:
            return
        hint = "Check SPENDWATCH_TOKEN." if text in ("HTTP 401", "HTTP 403") else "Check SPENDWATCH_ENDPOINT."
        log.error(
            "spendwatch: %s does not accept this process's calls (%s). %s They are kept %s and sent once it does.",
            self._exporter.address,
            text,
            hint,
            self._where(),
        )

    def _say_unreachable(self, text: str) -> None:
        # Once per outage, and not for the first stumble.
        if self._failures == 2:
            log.warning(
                "spendwatch can't deliver to %s (%s). Calls are kept %s and sent once it answers.",
                self._exporter.address,
                text,
                self._where(),
            )
