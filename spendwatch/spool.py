"""Finished calls on disk until a server has acknowledged them: a write-ahead spool that outlives the process.

Every process appends to a segment file of its own and holds a lock on it; the lock ends with the process, however it
dies, and that is how another process knows that a segment was left behind and may be adopted. One folder per
destination, so what is meant for one server never goes to another.

Invariant: a record whose append() returned True is in the file (no fsync: it survives the process, not a power cut)
and is given out by read() until ack(). A torn or damaged record is skipped and counted, never fatal. The spool is
bounded; what doesn't fit is dropped, counted in `dropped` and said once. A disk that can't be written leaves memory.
Never here: the network, what a record means.
"""

import contextlib
import logging
import os
import tempfile
import threading
from pathlib import Path

from spendwatch.frames import MAX_RECORD, OVERHEAD
from spendwatch.segments import HAS_LOCKS, SUFFIX, Batch, FileSegment, MemorySegment, Segment, sweep

log = logging.getLogger("spendwatch.spool")

SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment that has grown to this is closed and a new one begun, so that space comes back while a backlog drains."""


class Spool:
    """Where one process puts its records, and what else in the folder waits to be sent. folder=None: memory only."""

    def __init__(self, folder: Path | None, head: bytes, limit_bytes: int) -> None:
        self.folder = folder
        self.dropped = 0
        self.torn = 0
        self._head = head
        self._limit = limit_bytes
        self._lock = threading.RLock()
        self._current: Segment | None = None
        self._closed: list[Segment] = []
        self._memory = MemorySegment(head)
        self._bytes = 0
        self._others = 0
        self._said: set[str] = set()
        self._busy = False

    def append(self, record: bytes) -> bool:
        """Keep the record; False when it had to be dropped."""
        with self._lock:
            if len(record) > MAX_RECORD or self._bytes + self._others + len(record) > self._limit:
                self.dropped += 1
                self._say(
                    "full",
                    f"spendwatch: the spool holds {self._limit >> 20} MiB of calls that no server has taken; further "
                    "ones are dropped and counted until one does",
                )
                return False
            self._bytes += len(record) + OVERHEAD
            if self._busy:
                # The garbage collector or a signal handler finished a call in the midst of work on a segment.
                self._memory.append(record)
                return True
            self._busy = True
            try:
                self._writable().append(record)
            except OSError as exc:
                self._memory_instead(exc)
                self._memory.append(record)
            finally:
                self._busy = False
            return True

    def _writable(self) -> Segment:
        current = self._current
        if current is not None and current.size() < SEGMENT_BYTES:
            return current
        if self.folder is None:
            return self._memory
        if current is not None:
            self._closed.append(current)
            self._current = None
        try:
            self._current = FileSegment.create(self.folder, self._head)
        except OSError as exc:
            self._memory_instead(exc)
            return self._memory
        return self._current

    def _memory_instead(self, exc: OSError) -> None:
        self._say(
            "disk",
            f"spendwatch can't write its spool in {self.folder} ({exc.strerror or exc}); calls are kept in memory and "
            "are lost if the process ends before they are sent. Set SPENDWATCH_SPOOL_DIR to a folder it may write to.",
        )

    def _say(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            log.warning(text)

    def adopt(self) -> None:
        """Look for segments that no living process owns, and take them."""
        folder = self.folder
        if folder is None:
            return
        with self._lock:
            mine = {s.path for s in (*self._closed, self._current) if isinstance(s, FileSegment)}
        others = 0
        try:
            paths = sorted(folder.glob(f"*{SUFFIX}"))
        except OSError:
            return
        sweep(folder)
        for path in paths:
            if path in mine:
                continue
            segment = FileSegment.adopt(path)
            if segment is None:
                with contextlib.suppress(OSError):
                    others += path.stat().st_size
                continue
            with self._lock:
                self._closed.append(segment)
                self._bytes += segment.size()
        self._others = others

    def squeeze(self) -> None:
        """Make the closed segments smaller: for an outage that lasts, so that more calls fit. Called by one thread."""
        with self._lock:
            closed = [segment for segment in self._closed if isinstance(segment, FileSegment) and not segment.squeezed]
        for segment in closed:
            if segment.size() < SEGMENT_BYTES // 2:
                continue
            try:
                smaller = segment.squeeze()
            except OSError:
                return  # a full disk, or a segment that is gone: it stays as it is
            with self._lock:
                if segment not in self._closed:
                    smaller.remove()  # closed in the meantime
                    return
                try:
                    smaller.settle(segment)
                except OSError:
                    smaller.remove()
                    return
                self._bytes += smaller.size() - segment.size()
                self._closed[self._closed.index(segment)] = smaller
                segment.abandon()

    def segments(self) -> list[Segment]:
        """All segments that may have something to send, oldest first."""
        with self._lock:
            current = [self._current] if self._current is not None else []
            return [*self._closed, *current, self._memory]

    def read(self, segment: Segment, max_bytes: int, max_records: int) -> Batch | None:
        """The next records of the segment that are not acknowledged yet, None when there are none."""
        with self._lock:
            batch = segment.read(max_bytes, max_records)
            if batch is not None and batch.torn:
                self.torn += batch.torn
                log.warning("spendwatch skipped %d damaged record(s) in its spool", batch.torn)
            return batch

    def ack(self, segment: Segment, upto: int) -> None:
        """The records up to there are in safe hands. Removes a segment that is done with."""
        with self._lock:
            before = segment.size()
            self._busy = True
            try:
                segment.ack(upto)
            except OSError as exc:
                log.warning("spendwatch can't note an acknowledgement in its spool (%s); calls may be sent twice", exc)
            if segment in self._closed and not self._left(segment):
                self._closed.remove(segment)
                segment.remove()
                self._bytes -= before
            else:
                self._bytes -= before - segment.size()
            self._busy = False
            if self._bytes < self._limit // 2:
                self._said.discard("full")

    @staticmethod
    def _left(segment: Segment) -> bool:
        return segment.read(1, 1) is not None

    def pending(self) -> bool:
        """Whether anything waits to be sent."""
        with self._lock:
            return any(self._left(segment) for segment in self.segments())

    def volatile(self) -> int:
        """Records that would be lost if the process ended now."""
        return self._memory.count()

    def close(self) -> None:
        """Remove this process's own file if it is empty and let go of all others, for the next process to find."""
        with self._lock:
            for segment in self.segments():
                if self._left(segment):
                    segment.abandon()
                else:
                    segment.remove()
            self._current = None
            self._closed = []

    def after_fork(self) -> None:
        """In a forked child: what the parent had is the parent's to send."""
        self._lock = threading.RLock()
        for segment in (*self._closed, self._current):
            if segment is not None:
                segment.abandon()
        self._current = None
        self._closed = []
        self._memory = MemorySegment(self._head)
        self._bytes = 0
        self.dropped = self.torn = 0
        self._busy = False


def default_folder() -> Path:
    """The user's folder for spools: under $XDG_STATE_HOME, else ~/.local/state, else the temporary folder."""
    state = os.environ.get("XDG_STATE_HOME")
    home = os.path.expanduser("~")
    if state:
        return Path(state) / "spendwatch" / "spool"
    if home != "~" and os.access(home, os.W_OK):
        return Path(home) / ".local" / "state" / "spendwatch" / "spool"
    return Path(tempfile.gettempdir()) / f"spendwatch-{_uid()}" / "spool"


def open_folder(root: Path, destination: str) -> Path | None:
    """The folder for one destination below root, made if need be; None (said in the log) when that can't be."""
    folder = root / destination
    if not HAS_LOCKS:
        log.warning("spendwatch: no file locks on this system; calls are kept in memory until they are sent")
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = folder.stat()
        if stat.st_uid != _uid():
            raise PermissionError(13, "it belongs to another user")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "it may not be written to")
    except OSError as exc:
        log.warning(
            "spendwatch can't use %s for its spool (%s); calls are kept in memory and are lost if the process ends "
            "before they are sent. Set SPENDWATCH_SPOOL_DIR to a folder it may write to.",
            folder,
            exc.strerror or exc,
        )
        return None
    return folder


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
