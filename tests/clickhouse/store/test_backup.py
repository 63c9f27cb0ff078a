"""Backups of the embedded store: taken under writes, on top of one another, and brought back to the last digit."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from django.core.management import CommandError, call_command
from pytest_django import Settings

from spendwatch.clickhouse import queries, rollup, rows
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.migrate import migrate
from spendwatch.clickhouse.store import backup as backups
from spendwatch.clickhouse.store.archive import chain, read
from spendwatch.clickhouse.store.backup import backup, backups_folder, figures, restore
from spendwatch.errors import ConfigError, StoreError
from tests.clickhouse.builders import MONTH, RECEIVED, a_call, total
from tests.fixtures.store import RunningStore, start_store

from .conftest import Fetch


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    """A second store: a new machine."""
    store = start_store(tmp_path_factory.mktemp("other"))
    with store.process:
        yield store
        store.stop()


@pytest.fixture
def other(other_store: RunningStore) -> Iterator[Connection]:
    """A connection to the second store, whose database is empty."""
    with connect(other_store.dsn, caller="tests") as ch:
        yield ch
        for (name,) in ch.query("tables", "SHOW TABLES"):
            ch.command("drop", f"DROP TABLE {name} SYNC")


def store_calls(ch: Connection, first: int, count: int) -> None:
    rows.insert(ch, [a_call(number) for number in range(first, first + count)], received_at=RECEIVED)


def leftovers(ch: Connection) -> list[str]:
    return [path.name for path in backups_folder(ch).iterdir()]


def test_backups_on_top_of_one_another_come_back_whole_on_another_machine(
    clickhouse: Connection, other: Connection, tmp_path: Path
) -> None:
    store_calls(clickhouse, 1, 3000)
    rollup.roll(clickhouse)
    first = backup(clickhouse, tmp_path / "first.tar")
    store_calls(clickhouse, 5001, 30)
    second = backup(clickhouse, tmp_path, base=tmp_path)
    store_calls(clickhouse, 6001, 30)
    third = backup(clickhouse, tmp_path / "third.tar", base=second.path)
    assert [each.path for each in chain(third.path)] == [third.path, second.path, first.path]
    assert second.size_bytes < first.size_bytes / 2
    assert third.figures == figures(clickhouse)
    assert leftovers(clickhouse) == []
    # Names are nothing: a chain is known by what is inside.
    moved = third.path.rename(tmp_path / "elsewhere.tar")
    first.path.rename(tmp_path / "z.tar")
    restore(other, moved)
    assert figures(other).calls == 3060
    assert queries.spend(other, {}, MONTH) == queries.spend(clickhouse, {}, MONTH)
    assert queries.spend(other, {}, MONTH).cost == total([a_call(n) for n in range(3060)])
    assert migrate(other) == []
    assert leftovers(other) == []


def test_a_backup_under_writes_holds_one_instant_and_its_sums_agree_with_its_calls(
    clickhouse: Connection, migrated_store_dsn: str, other: Connection, tmp_path: Path
) -> None:
    stop = threading.Event()
    stored: list[int] = []
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with connect(migrated_store_dsn, caller="writer") as ch:
                while not stop.is_set():
                    store_calls(ch, 1 + 40 * len(stored), 40)
                    rollup.roll(ch)
                    stored.append(40)
        except BaseException as error:
            failures.append(error)
            raise

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = backup(clickhouse, tmp_path / "busy.tar")
    finally:
        stop.set()
        writer.join(60)
    assert failures == []
    assert made.figures is not None
    found = restore(other, made.path)
    assert found.calls == made.figures.calls
    assert (found.summed_calls, float(found.summed_cost)) == (found.calls, pytest.approx(float(found.cost)))
    assert 0 <= found.calls <= sum(stored)
    assert found.calls % 40 == 0


def test_calls_are_replaced_only_when_told_and_only_by_a_backup_that_is_right(
    clickhouse: Connection, other: Connection, tmp_path: Path
) -> None:
    store_calls(clickhouse, 1, 10)
    made = backup(clickhouse, tmp_path / "ten.tar")
    migrate(other)
    store_calls(other, 100, 3)
    with pytest.raises(ConfigError, match=r"found rows in llm_calls.* --replace"):
        restore(other, made.path)
    wrong = {**json.loads((tmp_path / "ten.tar.figures.json").read_text()), "calls": 11}
    (tmp_path / "ten.tar.figures.json").write_text(json.dumps(wrong))
    with pytest.raises(StoreError, match=r"calls=11.*found.*calls=10"):
        restore(other, made.path, replace=True)
    assert figures(other).calls == 3
    (tmp_path / "ten.tar.figures.json").unlink()
    assert restore(other, made.path, replace=True).calls == 10
    assert {str(name) for (name,) in other.query("tables", "SHOW TABLES")} == {
        "llm_calls", "llm_calls_daily", "llm_calls_daily_generations", "llm_calls_generations", "llm_calls_hourly",
        "llm_calls_hourly_newest", "spendwatch_migrations",
    }  # fmt: skip


def test_a_chain_without_its_base_is_refused_before_anything_is_touched(clickhouse: Connection, tmp_path: Path) -> None:
    store_calls(clickhouse, 1, 10)
    first = backup(clickhouse, tmp_path / "first.tar", verify=False)
    assert first.figures is None
    second = backup(clickhouse, tmp_path / "second.tar", base=first.path, verify=False)
    first.path.unlink()
    with pytest.raises(ConfigError, match=f"UUID {read(second.path).base_uuid}.*put all files of the chain"):
        restore(clickhouse, second.path, replace=True)
    assert figures(clickhouse).calls == 10


def test_what_can_be_wrong_with_a_place_is_said(clickhouse: Connection, tmp_path: Path) -> None:
    (tmp_path / "taken.tar").write_text("something")
    for target, said in (
        (tmp_path / "taken.tar", "is there already"),
        (tmp_path / "nowhere" / "x.tar", "expected a folder that can be written"),
        (tmp_path / "x.zip", r"ends in \.tar"),
    ):
        with pytest.raises(ConfigError, match=said):
            backup(clickhouse, target)
    with pytest.raises(ConfigError, match=r"expected a backup made by .* at .*taken.tar"):
        restore(clickhouse, tmp_path / "taken.tar")
    with pytest.raises(ConfigError, match=r"expected a backup .* in .*, found none"):
        restore(clickhouse, tmp_path)
    (tmp_path / "sub").mkdir()
    first = backup(clickhouse, tmp_path / "first.tar", verify=False)
    with pytest.raises(ConfigError, match=f"Write it into {tmp_path}"):
        backup(clickhouse, tmp_path / "sub", base=first.path)


def test_a_full_backup_without_room_is_refused_before_it_begins(
    clickhouse: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_calls(clickhouse, 1, 10)

    class Usage:
        free = 100

    monkeypatch.setattr(backups.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(ConfigError, match=r"MiB free at .*--base"):
        backup(clickhouse, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_saves_and_restores(
    clickhouse: Connection,
    migrated_store_dsn: str,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    store_calls(clickhouse, 1, 10)
    call_command("store", "backup", str(tmp_path / "a.tar"))
    with pytest.raises(CommandError, match="--replace"):
        call_command("store", "restore", str(tmp_path))
    call_command("store", "restore", str(tmp_path), "--replace")
    saved, restored = capsys.readouterr().out.splitlines()
    assert saved.startswith(f"saved {tmp_path}/a.tar (")
    assert saved.endswith("verified by restoring it: 10 calls, USD 0.021344")
    assert restored == "restored 10 calls, USD 0.021344"


def test_the_store_lets_in_its_own_backups_only(client: Client, fetch: Fetch) -> None:
    for sql in (
        "BACKUP DATABASE spendwatch TO File('/tmp/x.tar')",
        "BACKUP DATABASE system TO Disk('backups', 'x.tar')",
        "BACKUP DATABASE `spendwatch` TO Disk('backups', '../x.tar')",
        "BACKUP DATABASE `spendwatch` TO Disk('default', 'x.tar')",
        "BACKUP DATABASE `spendwatch` TO S3('http://127.0.0.1:1/x.tar')",
        "RESTORE DATABASE `system` FROM Disk('backups', 'x.tar')",
        "BACKUP ALL TO Disk('backups', 'x.tar')",
    ):
        with pytest.raises(DatabaseError, match="Code: 497"):
            client.command(sql)
    backup_sql = "BACKUP DATABASE `spendwatch` TO Disk('backups', 'reader.tar')"
    assert fetch(backup_sql, user="reader").code == 164
    assert fetch(method="GET", query=backup_sql).code == 164
