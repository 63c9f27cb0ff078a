"""A connection works or says what to do; what it reads arrives whole."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from spendwatch.clickhouse import client, rows
from spendwatch.clickhouse.client import Connection, Dsn, connect
from spendwatch.errors import ConfigError, StoreError
from tests.clickhouse.builders import RECEIVED, a_call


def with_password(dsn: str, password: str) -> str:
    head, tail = dsn.rsplit("@", 1)
    return f"{head.rsplit(':', 1)[0]}:{password}@{tail}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://u:p%40ss@db.local:8123/spend", Dsn("db.local", 8123, "u", "p@ss", "spend", False)),
        ("clickhouse://u:p@127.0.0.1", Dsn("127.0.0.1", 8123, "u", "p", "spendwatch", False)),
        ("https://cloud.example/spend", Dsn("cloud.example", 8443, "default", "", "spend", True)),
        ("http://u@h:1/d?secure=1", Dsn("h", 1, "u", "", "d", True)),
    ],
)
def test_a_dsn_says_where_to_go(text: str, expected: Dsn) -> None:
    assert Dsn.parse(text) == expected


@pytest.mark.parametrize("text", ["", "db.local:8123", "redis://u:secret@h/1", "http://u:secret@:99x/d", "http:///d"])
def test_a_dsn_that_is_none_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected http\(s\)://user:password@host:port/database") as refused:
        Dsn.parse(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "near"), [("localhost", True), ("127.0.0.1", True), ("[::1]", True), ("10.0.0.1", False), ("db", False)]
)
def test_only_a_remote_server_is_worth_compressing_for(host: str, near: bool) -> None:
    assert Dsn.parse(f"http://{host}:8123/d").is_loopback is near


def test_a_wrong_password_is_said_and_not_shown(store_dsn: str) -> None:
    with pytest.raises(StoreError, match="refused the user or password") as refused:
        connect(with_password(store_dsn, "not-it-9f3"), caller="tests")
    assert refused.value.permanent
    assert "not-it-9f3" not in str(refused.value)


def test_a_server_that_is_not_there_may_come_back() -> None:
    with pytest.raises(StoreError, match="can't be reached") as refused:
        connect("http://u:secret@127.0.0.1:9/spendwatch", caller="tests")
    assert not refused.value.permanent
    assert "secret" not in str(refused.value)


def test_a_table_that_is_not_there_is_a_migration_to_run(clickhouse: Connection) -> None:
    with pytest.raises(StoreError, match="migrate_clickhouse"):
        clickhouse.query("nothing", "SELECT 1 FROM no_such_table")


def test_a_result_that_comes_slowly_arrives_whole(clickhouse: Connection) -> None:
    slowly = "SELECT number, sleepEachRow(0.12) FROM numbers(4) SETTINGS max_block_size = 1"
    assert [number for number, _ in clickhouse.query("slowly", slowly)] == [0, 1, 2, 3]


def test_one_connection_serves_several_threads(clickhouse: Connection) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: clickhouse.query("n", "SELECT {n:UInt32}", {"n": n}), range(40)))
    assert answers == [[(n,)] for n in range(40)]


def test_our_batches_are_neither_batched_again_nor_dropped_as_seen(clickhouse: Connection) -> None:
    settings = clickhouse._insert_settings()
    assert (settings["async_insert"], settings["deduplicate_insert"], settings["insert_deduplicate"]) == (
        0,
        "disable",
        0,
    )
    assert settings["distributed_foreground_insert"] == 1
    assert settings["max_execution_time"] == client.INSERT_TIMEOUT_S


def test_a_block_that_cannot_be_written_is_refused_whole(clickhouse: Connection) -> None:
    rows.insert(clickhouse, [a_call(1)], received_at=RECEIVED)
    broken = list(rows.row_of(a_call(2), received_at=RECEIVED))
    broken[0] = -1
    with pytest.raises(StoreError) as refused:
        rows.write(clickhouse, [rows.row_of(a_call(3), received_at=RECEIVED), tuple(broken)])
    assert refused.value.permanent
    assert clickhouse.query("count", "SELECT count() FROM llm_calls") == [(1,)]
