"""Segments: queues of records in a file, or in memory where no file can be had. The spool is made of them.

A file: 8 bytes magic, 8 bytes offset up to which records are acknowledged, then frames of 4 bytes length, 4 bytes
CRC-32, payload. The first frame is the head (the resource that all its records share). Little endian. Its owner holds
a lock on it that ends with the process. In a squeezed file (its own magic) the payload of every frame but the head is
zlib's of a run of frames, which are acknowledged together. Invariant: what read() gives passed its CRC; a torn or
damaged record is skipped and counted, never fatal. Never here: which segments there are, how much may be kept.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import struct
import time
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zlib import crc32

from spendwatch import frames
from spendwatch.frames import FRAME, MAX_RECORD, OVERHEAD

# Windows has no advisory locks that end with the process, so there nothing could be adopted safely.
HAS_LOCKS = importlib.util.find_spec("fcntl") is not None
if HAS_LOCKS:
    import fcntl

log = logging.getLogger("spendwatch.spool")

MAGIC = b"SPENDW1\n"
SQUEEZED = b"SPENDW2\n"
SUFFIX = ".spool"
DRAFT = ".draft"
_RUN = 256 * 1024
"""Bytes of frames that are squeezed together."""

_HEADER = struct.Struct("<8sQ")
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

    def __init__(
        self, path: Path, fd: int, head: bytes, start: int, acked: int, end: int, *, squeezed: bool = False
    ) -> None:
        self.path = path
        self.head = head
        self.squeezed = squeezed
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
                if not _lock(fd) or os.fstat(fd).st_nlink == 0:
                    # Somebody looking for left-behind segments was quicker: it removes, or has removed, the empty file.
                    os.close(fd)
                    continue
                frame = frames.frame(head)
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
        header = os.pread(fd, _HEADER.size + OVERHEAD, 0)
        if len(header) < _HEADER.size + OVERHEAD:
            os.unlink(path)  # died while creating it: no record can be in it
            return None
        magic, acked = _HEADER.unpack_from(header)
        if magic not in (MAGIC, SQUEEZED):
            return None  # of another version: not ours to judge
        length, crc = FRAME.unpack_from(header, _HEADER.size)
        head = os.pread(fd, min(length, MAX_RECORD), _HEADER.size + OVERHEAD)
        start = _HEADER.size + OVERHEAD + length
        if len(head) != length or crc32(head) != crc:
            if size <= start:
                os.unlink(path)
            else:
                log.warning("spendwatch: %s has a damaged head; its records can't be sent, it is left there", path)
            return None
        acked, end = min(max(acked, start), max(size, start)), max(size, start)
        return cls(path, fd, head, start, acked, end, squeezed=magic == SQUEEZED)

    def squeeze(self) -> "FileSegment":
        """What is left of this segment in a smaller file, still under a draft's name. Raises OSError.

        The owner of both puts it in this one's place (settle()) or takes it away (remove()).
        """
        path = self.path.with_suffix(DRAFT)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        smaller = FileSegment(path, fd, self.head, self._start, self._start, self._start, squeezed=True)
        try:
            _lock(fd)
            _write(fd, _HEADER.pack(SQUEEZED, self._start) + frames.frame(self.head), 0)
            at = self._acked
            while at < self._end:
                data = os.pread(self._fd, min(self._end - at, _RUN + OVERHEAD + MAX_RECORD), at)
                run = frames.run(data, _RUN)
                small = zlib.compress(run, 1)
                if not run or len(small) > MAX_RECORD:
                    raise OSError(5, "a damaged or huge record is in the way")
                smaller.append(small)
                at += len(run)
        except OSError:
            smaller.remove()
            raise
        return smaller

    def settle(self, place: "FileSegment") -> None:
        """Take another segment's place, at once: whoever looks finds the one or the other. Raises OSError."""
        os.replace(self.path, place.path)
        self.path = place.path

    def append(self, record: bytes) -> None:
        frame = frames.frame(record)
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
        if len(data) >= OVERHEAD:
            length, _ = FRAME.unpack_from(data)
            need = OVERHEAD + length
            if len(data) < need <= min(end - start, OVERHEAD + MAX_RECORD):
                data = os.pread(self._fd, need, start)
        records, taken, torn = frames.records(data, 1 if self.squeezed else max_records)
        if not taken:
            # Not one whole frame although the file goes on: what a crash tore off. Nothing behind it can be trusted.
            return Batch([], end, 1)
        if self.squeezed and records:
            run = zlib.decompress(records[0])
            records, _, torn = frames.records(run, len(run))
        return Batch(records, start + taken, torn)

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


def sweep(folder: Path) -> None:
    """Take away the drafts of processes that are gone: the segments they were made of are still there."""
    for path in folder.glob(f"*{DRAFT}"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if _lock(fd) and os.fstat(fd).st_nlink:
                    os.unlink(path)
            finally:
                os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(fd: int, data: bytes, at: int) -> None:
    written = os.pwrite(fd, data, at)
    if written != len(data):
        raise OSError(28, "the disk took only a part")
