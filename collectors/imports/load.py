"""From a source into llm_calls: batch by batch, what can't be taken into a file, and how far it came into the database.

The order is the promise: calls are stored, then the rejects are written, then the position. A process that dies between
two of them does some work twice, which changes nothing, and loses none. Never here: what a row means.
"""

import csv
import fcntl
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from django.utils import timezone

from collectors.imports.models import Import
from ledger.clickhouse import connection
from spendwatch.calls import PricedCall
from spendwatch.clickhouse import rows
from spendwatch.errors import ConfigError, StoreError

log = logging.getLogger("spendwatch.collectors.imports")

_TRIES = 6
_FAULTS = (ValueError, TypeError, OverflowError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class Reject:
    """What can't be taken: where it stands in its source, why, and what it says there."""

    place: str
    reason: str
    raw: str = ""


@dataclass(slots=True)
class Batch:
    """Some calls, what was refused among them, and the position behind both. places: of each call, for its reject."""

    position: Any
    calls: list[PricedCall] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class Progress(Protocol):
    """Told after each batch."""

    def __call__(self, done: Import, batch: Batch, /) -> None: ...


def begin(source: str, *, version: str, project: str, again: bool) -> Import:
    """The import of this source: where it was left, or a new one when the source is another or `again` is wanted."""
    found, made = Import.objects.get_or_create(source=source, defaults={"version": version, "project": project})
    if made:
        return found
    if again or found.version != version or found.project != project:
        found.version, found.project = version, project
        found.position, found.accepted, found.rejected, found.rejects_bytes = None, 0, 0, 0
        found.finished_at = None
        found.save()
    return found


def run(job: Import, batches: Iterable[Batch], rejects: "Rejects", progress: Progress) -> Import:
    """Store every batch. Raises StoreError when ClickHouse does not take them; then run it again."""
    job.finished_at = None
    for batch in batches:
        refused = _insert(batch)
        job.rejects_bytes = rejects.write([*batch.rejects, *refused], job.rejects_bytes)
        job.accepted += len(batch.calls) - len(refused)
        job.rejected += len(batch.rejects) + len(refused)
        job.position = batch.position
        job.save()
        progress(job, batch)
    job.finished_at = timezone.now()
    job.save()
    return job


def _insert(batch: Batch) -> list[Reject]:
    """Store the calls but those that fit no row, which are returned."""
    refused: list[Reject] = []
    parts: list[tuple[Sequence[PricedCall], Sequence[str]]] = [(batch.calls, batch.places)]
    while parts:
        calls, places = parts.pop()
        if not calls:
            continue
        try:
            _stored(calls)
        except _FAULTS as error:
            if len(calls) == 1:
                refused.append(Reject(places[0], f"a call that can't be stored: {error}"))
                continue
            half = len(calls) // 2
            parts += [(calls[half:], places[half:]), (calls[:half], places[:half])]
    return refused


def _stored(calls: Sequence[PricedCall], sleep: Callable[[float], None] = time.sleep) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            rows.insert(connection("collectors.imports"), calls, received_at=timezone.now())
            return
        except StoreError as error:
            if error.permanent or attempt == _TRIES:
                raise
            log.warning("trying again: %s", error)
            sleep(error.retry_after_s or min(2**attempt, 30))


class Rejects:
    """The file of what was refused: CSV with place, reason and the row. Made when there is something for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def write(self, rejects: Sequence[Reject], known_bytes: int) -> int:
        """Add these behind the first known_bytes (what follows was not counted yet) and return where it ends now.

        Raises ConfigError when the file can't be written, or another import writes it.
        """
        if not rejects:
            return known_bytes
        file = self._file or self._open()
        known = min(known_bytes, file.seek(0, 2))
        file.seek(known)
        file.truncate()
        text = _Lines()
        writer = csv.writer(text)
        if not known:
            writer.writerow(("place", "reason", "row"))
        writer.writerows((reject.place, reject.reason, reject.raw) for reject in rejects)
        file.write("".join(text.lines).encode("utf-8", "replace"))
        file.flush()
        return file.tell()

    def _open(self) -> IO[bytes]:
        try:
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another import writes {self.path} now. Let it finish.") from None
        except OSError as error:
            raise ConfigError(
                f"the rejects can't be written to {self.path}: {error}. Name another --rejects."
            ) from None
        return self._file

    def close(self) -> None:
        """Let others write it."""
        if self._file is not None:
            self._file.close()


class _Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> int:
        self.lines.append(line)
        return len(line)
