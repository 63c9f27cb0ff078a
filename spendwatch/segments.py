"""Segments: queues of records in a file, or in memory where no file can be had. The spool is made of them.

A file: 8 bytes magic, 8 bytes offset up to which records are acknowledged, then frames of 4 bytes length, 4 bytes
CRC-32, payload. The first frame is the head (the resource that all its records share). Little endian. Its owner holds
a lock on it that ends with the process. Invariant: what read() gives passed its CRC; a torn or damaged record is
skipped and counted, never fatal. Never here: which segments there are, how much may be kept.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import struct
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

_HEADER = struct.Struct("<8sQ")
_FRAME = struct.Struct("<II")
_ACKED = struct.Struct("<Q")
OVERHEAD = _FRAME.size
"""Bytes that a record takes in a file beside its own."""


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
                if not _lock(fd) or os.fstat(fd).st_nlink == 0:
                    # Somebody looking for left-behind segments was quicker: it removes, or has removed, the empty file.
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
