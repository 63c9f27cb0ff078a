"""What a statement may not do to the machine, whoever sends it with a valid password."""

import json
from pathlib import Path

import pytest

from spendwatch.clickhouse.store.statement import outside_name
from tests.clickhouse.store.conftest import Fetch
from tests.fixtures.store import RunningStore

FORBIDDEN = (
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM default.`/etc/passwd`",
    "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
    "SELECT * FROM s3('http://127.0.0.1:9/bucket/key.tsv', 'TSV', 'a Int8')",
    "SELECT * FROM remote('127.0.0.2', system.one)",
    "SELECT * FROM postgresql('127.0.0.1:5432', 'a', 'b', 'c', 'd')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "INSERT INTO FUNCTION file('/tmp/spendwatch-store-test', 'TSV') SELECT 1",
    "SELECT 1 INTO OUTFILE '/tmp/spendwatch-store-test'",
    "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV",
    "CREATE TABLE f (a String) ENGINE = File(TSV)",
    "CREATE TABLE f (a String) ENGINE = URL('http://127.0.0.1:9/', TSV)",
    "CREATE TABLE f (a UInt8) ENGINE = EmbeddedRocksDB(0, '/tmp/spendwatch-store-test') PRIMARY KEY a",
    "CREATE TABLE f (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = web, endpoint = 'http://x/')",
    "CREATE TABLE f AS file('/etc/passwd', 'LineAsString')",
    "CREATE VIEW v AS SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "CREATE DICTIONARY d (a UInt64, b String) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND 'id' FORMAT 'TSV')) "
    "LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE DICTIONARY d (a UInt64, b String) PRIMARY KEY a SOURCE(HTTP(URL 'http://127.0.0.1:9/' FORMAT 'TSV')) "
    "LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE DATABASE other",
    "CREATE TABLE default.t (a UInt8) ENGINE = Memory",
    "CREATE TABLE system.t (a UInt8) ENGINE = Memory",
    "SELECT * FROM system.users",
    "CREATE USER other",
    "GRANT ALL ON *.* TO default",
    "CREATE FUNCTION f AS x -> x",
    "CREATE NAMED COLLECTION c AS a = 'b'",
    "BACKUP DATABASE spendwatch TO File('/tmp/spendwatch-store-test')",
    "SYSTEM SHUTDOWN",
    "SYSTEM RELOAD CONFIG",
    "EXECUTE AS other SELECT 1",
)


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_nothing_outside_the_database_is_reached(fetch: Fetch, statement: str) -> None:
    reply = fetch(statement)
    assert reply.status >= 400
    assert reply.code is not None
    assert b"root:" not in reply.body
    assert not Path("/tmp/spendwatch-store-test").exists()


def test_an_expression_inside_data_reads_no_file(fetch: Fetch, table: str) -> None:
    fetch(f"INSERT INTO {table} VALUES (1, file('/etc/passwd'))")
    assert b"root" not in fetch(f"SELECT * FROM {table}").body


def test_the_database_itself_can_be_worked_with(fetch: Fetch) -> None:
    for statement in (
        "CREATE TABLE ok (a UInt8) ENGINE = ReplacingMergeTree ORDER BY a",
        "CREATE MATERIALIZED VIEW ok_view ENGINE = SummingMergeTree ORDER BY a AS SELECT a FROM ok",
        "ALTER TABLE ok ADD COLUMN b String DEFAULT 'x'",
        "INSERT INTO ok (a) VALUES (1)",
        "ALTER TABLE ok DELETE WHERE a = 1",
        "OPTIMIZE TABLE ok FINAL",
        "CREATE TABLE ok_2 AS ok",
        "EXCHANGE TABLES ok AND ok_2",
        "DETACH TABLE ok_2",
        "ATTACH TABLE ok_2",
        "SHOW CREATE TABLE ok",
        "EXPLAIN indexes = 1 SELECT * FROM ok",
        "SELECT count() FROM system.parts WHERE table = 'ok'",
        "SELECT attributes['file'], 'eval(1)' FROM (SELECT map('file', 'disk(x)') AS attributes)",
        "DROP VIEW ok_view",
        "DROP TABLE ok",
        "DROP TABLE ok_2",
    ):
        reply = fetch(statement)
        assert reply.status == 200, (statement, reply.body)


def test_no_password_is_on_the_command_line_or_in_the_engine(store_process: RunningStore, fetch: Fetch) -> None:
    command = Path(f"/proc/{store_process.process.pid}/cmdline").read_bytes()
    assert store_process.password.encode() not in command
    config = store_process.folder / "data" / "config"
    assert all(store_process.password not in file.read_text() for file in config.iterdir() if file.is_file())


def test_the_data_folder_is_its_owners_alone(store_process: RunningStore) -> None:
    assert (store_process.folder / "data").stat().st_mode & 0o077 == 0


def test_the_engine_has_a_limit_of_memory(fetch: Fetch) -> None:
    assert fetch("SELECT getServerSetting('max_server_memory_usage')").body == b"2147483648\n"
    reply = fetch("SELECT length(arrayResize([1::UInt64], 300000000))")
    assert reply.code == 241
    assert fetch("SELECT 1").status == 200


def test_the_machines_clock_zone_is_utc(fetch: Fetch) -> None:
    assert json.loads(fetch("SELECT [timezone(), serverTimezone()] FORMAT JSONCompactEachRow").body) == [["UTC", "UTC"]]


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT file('x')", "file"),
        ("SELECT \"file\"('x')", "file"),
        ("SELECT /* c */ eval ('x')", "eval"),
        ("SELECT 1 SETTINGS disk = DISK (type = s3)", "disk"),
        ("SELECT 'file(1)', attributes['eval'] -- file(x)", None),
        ("SELECT filesystem, profile, disk FROM t", None),
        ("SELECT File('x')", None),
    ],
)
def test_names_that_reach_out_are_found_outside_of_texts_only(sql: str, name: str | None) -> None:
    assert outside_name(sql.encode()) == name
