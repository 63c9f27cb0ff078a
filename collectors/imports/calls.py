"""A file's rows -> batches of calls for load.run()."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from collectors.imports import columns
from collectors.imports.columns import Window
from collectors.imports.files import Broken, Source
from collectors.imports.load import Batch, Reject
from collectors.imports.mapping import Mapping_
from spendwatch.errors import ReadError
from spendwatch.prices import PriceBook

BATCH_CALLS = 5_000
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)


def window(now: datetime, kept_days: int | None) -> Window:
    """When calls may have started. kept_days: older ones would be deleted, and their hours summed no more."""
    until = now + _AHEAD
    if kept_days is None:
        return Window(since=_EARLIEST, until=until, reason="a time from 2020 to tomorrow")
    since = (now - timedelta(days=kept_days) + timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
    reason = f"one of the {kept_days} days that calls are kept (SPENDWATCH_RETENTION_DAYS)"
    return Window(since=since, until=until, reason=reason)


def batches(
    source: Source, mapping: Mapping_, *, after: int, project: str, within: Window, book: PriceBook
) -> Iterator[Batch]:
    """The calls behind the first `after` rows. A batch's position is the number of its last row."""
    batch, begun = Batch(position=after), after
    for row in source.read(after):
        batch.position = row.number
        place = f"row {row.number}, line {row.line}" if source.kind != "parquet" else f"row {row.number}"
        if isinstance(row, Broken):
            batch.rejects.append(Reject(place, row.reason))
        elif not mapping.skips(row.values):
            try:
                call = columns.read(row.values, mapping, project=project, window=within, book=book)
            except ReadError as error:
                batch.rejects.append(Reject(place, str(error), _shown(mapping.read_of(row.values))))
            else:
                batch.calls.append(call)
                batch.places.append(place)
        if batch.position - begun >= BATCH_CALLS:
            yield batch
            batch, begun = Batch(position=batch.position), batch.position
    if batch.position > begun:
        yield batch


def _shown(values: Mapping[str, object]) -> str:
    """What was read of the row; other columns may hold what was said in the call."""
    return json.dumps(values, default=str, ensure_ascii=False)[:2000]
