"""The schema is made once, the same for one node and for a cluster, and never edited behind a database's back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from spendwatch.clickhouse import migrate as schema
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.migrate import Layout, Migration, migrate, migrations, pending
from spendwatch.errors import ConfigError
from tests.fixtures.store import RunningStore, start_store

GOLDEN = Path(__file__).parent / "golden"
LAYOUTS: tuple[Layout, ...] = ("single", "cluster")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    """A store without tables."""
    store = start_store(tmp_path_factory.mktemp("empty"))
    with store.process:
        yield store
        store.stop()


@pytest.fixture
def empty(empty_store: RunningStore) -> Iterator[Connection]:
    """A connection to a database without tables."""
    with connect(empty_store.dsn, caller="tests") as ch:
        yield ch
        for (name,) in ch.query("tables", "SELECT name FROM system.tables WHERE database = currentDatabase()"):
            ch.command("drop", f"DROP TABLE {name}")


def rendered(layout: Layout) -> str:
    return "".join(f"{sql};\n\n" for one in migrations() for sql in one.statements(layout, "spendwatch"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_schema_is_the_one_on_file(layout: Layout) -> None:
    # After a new migration: look at the difference, then write the new text into the file.
    assert rendered(layout) == (GOLDEN / f"{layout}.sql").read_text()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_engine_can_read_every_statement(clickhouse: Connection, layout: Layout) -> None:
    for one in migrations():
        for sql in one.statements(layout, "spendwatch"):
            ((formatted,),) = clickhouse.query("format", "SELECT formatQuery({sql:String})", {"sql": sql})
            assert formatted.startswith("CREATE ")


def test_a_cluster_replicates_every_table_and_shards_by_session() -> None:
    text = rendered("cluster")
    assert text.count("ON CLUSTER '{cluster}'") == text.count("CREATE ")
    assert text.count("ENGINE = Replicated") + text.count("ENGINE = Distributed") == text.count("CREATE TABLE")
    assert "if(session_id = '', call_id, cityHash64(session_id))" in text


def test_migrating_twice_does_it_once(empty: Connection) -> None:
    names = [one.name for one in migrations()]
    assert pending(empty) == names
    assert migrate(empty) == names
    assert migrate(empty) == []
    assert pending(empty) == []


def test_two_processes_may_migrate_at_once(empty: Connection, empty_store: RunningStore) -> None:
    def run(_: int) -> None:
        with connect(empty_store.dsn, caller="tests") as ch:
            migrate(ch)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert pending(empty) == []


def test_a_migration_that_died_half_way_is_run_again(empty: Connection) -> None:
    first = migrations()[0]
    empty.command("half", first.statements("single", empty.database)[0])
    assert migrate(empty) == [one.name for one in migrations()]


def test_a_file_edited_after_it_was_applied_is_refused(empty: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty)
    edited = [Migration(one.name, one.text + "-- a thought\n") for one in migrations()]
    monkeypatch.setattr(schema, "migrations", lambda: edited)
    with pytest.raises(ConfigError, match=r"0001_llm_calls.sql was edited .* new numbered file"):
        migrate(empty)


def test_another_layout_is_refused(empty: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty)
    # What a cluster's statements need can't be had here; what is refused comes before them.
    monkeypatch.setitem(schema._WORDS, "cluster", schema._WORDS["single"])
    with pytest.raises(ConfigError, match="made for layout single, found layout cluster"):
        migrate(empty, layout="cluster")


def test_a_database_name_that_needs_escaping_is_refused() -> None:
    with pytest.raises(ConfigError, match="letters, digits and _"):
        schema.quoted("spend`; DROP TABLE x")


def test_the_command_says_what_it_did(
    empty: Connection, empty_store: RunningStore, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = empty_store.dsn
    call_command("migrate_clickhouse")
    call_command("migrate_clickhouse")
    assert capsys.readouterr().out.splitlines() == [
        *(f"applied {one.name}" for one in migrations()), "ClickHouse is up to date."
    ]  # fmt: skip


def test_the_command_ends_with_one_clear_line_when_it_cannot(settings: Settings) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = "http://u:secret@127.0.0.1:9/spendwatch"
    with pytest.raises(CommandError, match="can't be reached"):
        call_command("migrate_clickhouse")
