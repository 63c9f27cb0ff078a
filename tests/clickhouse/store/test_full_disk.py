"""A full disk: nothing is acknowledged that is not stored, reads go on, and room is all that it takes to go on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spendwatch.clickhouse import rows
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.migrate import migrate
from spendwatch.errors import StoreError
from tests.clickhouse.builders import RECEIVED, a_call
from tests.fixtures.store import RunningStore, start_store

pytestmark = pytest.mark.needs("tmpfs")

NOT_ENOUGH_SPACE = 243


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_store(small_disk: Path) -> Iterator[RunningStore]:
    """A store on that file system, with the schema."""
    store = start_store(small_disk)
    with store.process:
        with connect(store.dsn, caller="tests") as ch:
            migrate(ch)
        yield store
        store.stop()


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out:
        try:
            while out.write(b"\0" * 65536) == 65536:
                pass
        except OSError:
            return  # full


def stored(ch: Connection) -> int:
    ((count,),) = ch.query("count", "SELECT count() FROM llm_calls FINAL")
    return int(count)


def test_a_full_disk_refuses_writes_answers_reads_and_recovers_by_itself(small_store: RunningStore) -> None:
    first, second = [[a_call(n) for n in range(start, start + 50)] for start in (1, 1001)]
    with connect(small_store.dsn, caller="tests") as ch:
        rows.insert(ch, first, received_at=RECEIVED)
        filler = small_store.folder / "filler"
        fill(filler)
        for _ in range(2):
            # Not permanent: the collector keeps the spans and answers 503.
            with pytest.raises(StoreError, match=r"not enough space.*send them again") as refused:
                rows.insert(ch, second, received_at=RECEIVED)
            assert not refused.value.permanent
            assert stored(ch) == 50
        for sql in (
            "INSERT INTO spendwatch_migrations (name) VALUES ('x')",
            "INSERT INTO spendwatch_migrations (name) SELECT 'x'",
        ):
            with pytest.raises(StoreError, match=f"code {NOT_ENOUGH_SPACE}"):
                ch.command("other", sql)
        filler.unlink()
        rows.insert(ch, second, received_at=RECEIVED)
        assert stored(ch) == 100
