"""Finished calls on disk until a server has acknowledged them: a write-ahead spool that outlives the process.

Every process appends to a segment file of its own and holds a lock on it; the lock ends with the process, however it
dies, and that is how another process knows that a segment was left behind and may be adopted. One folder per
destination, so what is meant for one server never goes to another.

Invariant: a record whose append() returned True is in the file (no fsync: it survives the process, not a power cut)
and is given out by read() until ack(). A torn or damaged record is skipped and counted, never fatal. The spool is
bounded; what doesn't fit is dropped, counted in `dropped` and said once. A disk that can't be written leaves memory.
Never here: the network, what a record means.

A segment: 8 bytes magic, 8 bytes offset up to which records are acknowledged, then frames of 4 bytes length, 4 bytes
CRC-32, payload. The first frame is the head (the resource that all its records share). Little endian.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import struct
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zlib import crc32

# Windows has no advisory locks that end with the process, so there nothing could be adopted safely.
HAS_LOCKS = importlib.util.find_spec("fcntl") is not None
if HAS_LOCKS:
    import fcntl

log = logging.getLogger("spendwatch.spool")

MAGIC = b"SPENDW1\n"
SUFFIX = ".spool"
MAX_RECORD = 1024 * 1024
"""Bytes of one record; a call with more attributes than that is not kept."""
SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment that has grown to this is closed and a new one begun, so that space comes back while a backlog drains."""

_HEADER = struct.Struct("<8sQ")
_FRAME = struct.Struct("<II")
_ACKED = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that wait for an acknowledgement. `upto` goes to ack(); torn: damaged ones that were skipped."""

    records: list[bytes]
    upto: int
    torn: int = 0


class Segment(Protocol):
    """A queue of records with one head."""

    head: bytes

    def append(self, record: bytes) -> None: ...
    def read(self, max_bytes: int, max_records: int) -> Batch | None: ...
    def ack(self, upto: int) -> None: ...
    def size(self) -> int: ...
    def remove(self) -> None: ...
    def abandon(self) -> None: ...


class MemorySegment:
    """A segment that lives in this process only: what is left when the disk can't be written."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self._records: deque[bytes] = deque()
        self._bytes = 0
        self._first = 0

    def append(self, record: bytes) -> None:
        self._records.append(record)
        self._bytes += len(record)

    def read(self, max_bytes: int, max_records: int) -> Batch | None:
        records: list[bytes] = []
        total = 0
        for record in list(self._records):
            if records and (total + len(record) > max_bytes or len(records) >= max_records):
                break
            records.append(record)
            total += len(record)
        return Batch(records, self._first + len(records)) if records else None

    def ack(self, upto: int) -> None:
        while self._first < upto and self._records:
            self._bytes -= len(self._records.popleft())
            self._first += 1

    def size(self) -> int:
        return self._bytes

    def count(self) -> int:
        return len(self._records)

    def remove(self) -> None:
        self._records.clear()
        self._bytes = 0

    def abandon(self) -> None:
        self.remove()


class FileSegment:
    """A segment file, locked by this process. append() and ack() are called under the spool's lock."""

    def __init__(self, path: Path, fd: int, head: bytes, start: int, acked: int, end: int) -> None:
        self.path = path
        self.head = head
        self._fd = fd
        self._start = start
        self._acked = acked
        self._end = end

    @classmethod
    def create(cls, folder: Path, head: bytes) -> "FileSegment":
        """A new, empty segment. Raises OSError when the folder can't be written."""
        while True:
            path = folder / f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                if not _lock(fd):
                    # Somebody looking for left-behind segments was quicker; it removes the empty file.
                    os.close(fd)
                    continue
                frame = _frame(head)
                start = _HEADER.size + len(frame)
                _write(fd, _HEADER.pack(MAGIC, start) + frame, 0)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                os.close(fd)
                raise
            return cls(path, fd, head, start, start, start)

    @classmethod
    def adopt(cls, path: Path) -> "FileSegment | None":
        """Take over the segment of a process that is gone; None when its owner lives or there is nothing in it."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if not _lock(fd):
                os.close(fd)
                return None
            stat = os.fstat(fd)
            if stat.st_nlink == 0:
                os.close(fd)
                return None
            found = cls._read_head(path, fd, stat.st_size)
            if found is None:
                os.close(fd)
            return found
        except OSError:
            os.close(fd)
            return None

    @classmethod
    def _read_head(cls, path: Path, fd: int, size: int) -> "FileSegment | None":
        header = os.pread(fd, _HEADER.size + _FRAME.size, 0)
        if len(header) < _HEADER.size + _FRAME.size:
            os.unlink(path)  # died while creating it: no record can be in it
            return None
        magic, acked = _HEADER.unpack_from(header)
        if magic != MAGIC:
            return None  # of another version: not ours to judge
        length, crc = _FRAME.unpack_from(header, _HEADER.size)
        head = os.pread(fd, min(length, MAX_RECORD), _HEADER.size + _FRAME.size)
        start = _HEADER.size + _FRAME.size + length
        if len(head) != length or crc32(head) != crc:
            if size <= start:
                os.unlink(path)
            else:
                log.warning("spendwatch: %s has a damaged head; its records can't be sent, it is left there", path)
            return None
        return cls(path, fd, head, start, min(max(acked, start), max(size, start)), max(size, start))

    def append(self, record: bytes) -> None:
        frame = _frame(record)
        at = self._end
        try:
            _write(self._fd, frame, at)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, at)
            raise
        self._end = at + len(frame)

    def read(self, max_bytes: int, max_records: int) -> Batch | None:
        start, end = self._acked, self._end
        if start >= end:
            return None
        data = os.pread(self._fd, min(end - start, max_bytes), start)
        if len(data) >= _FRAME.size:
            length, _ = _FRAME.unpack_from(data)
            need = _FRAME.size + length
            if len(data) < need <= min(end - start, _FRAME.size + MAX_RECORD):
                data = os.pread(self._fd, need, start)
        records: list[bytes] = []
        at = torn = 0
        while at + _FRAME.size <= len(data) and len(records) < max_records:
            length, crc = _FRAME.unpack_from(data, at)
            after = at + _FRAME.size + length
            if length > MAX_RECORD:
                break
            if after > len(data):
                break
            payload = data[at + _FRAME.size : after]
            if crc32(payload) == crc and length:
                records.append(payload)
            else:
                torn += 1
            at = after
        if at == 0:
            # Not one whole frame although the file goes on: what a crash tore off. Nothing behind it can be trusted.
            return Batch([], end, 1)
        return Batch(records, start + at, torn)

    def ack(self, upto: int) -> None:
        self._acked = upto
        os.pwrite(self._fd, _ACKED.pack(upto), len(MAGIC))
        if upto == self._end and self._end > self._start:
            # In this order a crash in between leaves an offset behind the end of the file: nothing to send again.
            os.ftruncate(self._fd, self._start)
            self._acked = self._end = self._start
            os.pwrite(self._fd, _ACKED.pack(self._start), len(MAGIC))

    def size(self) -> int:
        return self._end - self._start

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._fd)

    def abandon(self) -> None:
        """Close without removing (in a forked child: the lock stays with the parent, who has the same open file)."""
        with contextlib.suppress(OSError):
            os.close(self._fd)


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
            self._bytes += len(record) + _FRAME.size
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


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), crc32(payload)) + payload


def _write(fd: int, data: bytes, at: int) -> None:
    written = os.pwrite(fd, data, at)
    if written != len(data):
        raise OSError(28, "the disk took only a part")
