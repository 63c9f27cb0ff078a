"""clickhouse-connect's own client against the store: what works with a ClickHouse server works here."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.fixtures.store import RunningStore

ROWS = [[1, "one"], [2, "zwei"], [3, "τρία"]]


def test_client_learns_the_server(client: Client) -> None:
    assert client.server_version.startswith("26.")
    assert client.server_tz.key == "UTC" if hasattr(client.server_tz, "key") else str(client.server_tz) == "UTC"
    assert client.command("SELECT currentDatabase()") == "spendwatch"
    assert client.ping()


def test_rows_come_back_as_they_were_inserted(client: Client, table: str) -> None:
    summary = client.insert(table, ROWS, column_names=["number", "word"])
    assert summary.written_rows == 3
    result = client.query(f"SELECT number, word FROM {table} ORDER BY number")
    assert [list(row) for row in result.result_rows] == ROWS
    assert result.column_names == ("number", "word")
    assert int(result.summary["result_rows"]) == 3


def test_columns_can_be_inserted(client: Client, table: str) -> None:
    client.insert(table, [[1, 2, 3], ["a", "b", "c"]], column_names=["number", "word"], column_oriented=True)
    assert client.command(f"SELECT sum(number) FROM {table}") == 6


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("CSV", b'1,"one"\n2,"two"\n'),
        ("TabSeparated", b"1\tone\n2\ttwo\n"),
        ("JSONEachRow", b'{"number": 1, "word": "one"}\n{"number": 2, "word": "two"}\n'),
        ("Values", b"(1, 'one'), (2, lower('TWO'))"),
    ],
)
def test_raw_insert_takes_any_format(client: Client, table: str, format: str, data: bytes) -> None:
    client.raw_insert(table, ["number", "word"], data, fmt=format)
    assert client.query(f"SELECT * FROM {table} ORDER BY number").result_rows == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd", True, False])
def test_every_compression_works_both_ways(store_dsn: str, table: str, compression: str | bool) -> None:
    rows = [[number, f"word {number % 7}"] for number in range(30_000)]
    with clickhouse_connect.get_client(dsn=store_dsn, compress=compression) as client:
        client.insert(table, rows, column_names=["number", "word"])
        found = client.query(f"SELECT * FROM {table} ORDER BY number").result_rows
    assert [list(row) for row in found] == rows


def test_streams_hand_out_every_row(client: Client) -> None:
    query = "SELECT number, toString(number) AS word FROM numbers(300000)"
    with client.query_rows_stream(query) as rows:
        assert sum(row[0] for row in rows) == sum(range(300_000))
    with client.query_column_block_stream(query) as blocks:
        assert sum(len(block[0]) for block in blocks) == 300_000
    with client.query_row_block_stream(query) as blocks:
        assert sum(len(block) for block in blocks) == 300_000


def test_frames_and_arrow_tables_pass(client: Client, table: str) -> None:
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    client.insert_df(table, pandas.DataFrame({"number": [1, 2], "word": ["a", "b"]}))
    client.insert_arrow(table, pyarrow.table({"number": [3], "word": ["c"]}))
    assert client.query_arrow(f"SELECT * FROM {table} ORDER BY number").num_rows == 3
    assert client.query_df(f"SELECT * FROM {table}")["number"].sum() == 6
    assert client.query_np(f"SELECT number FROM {table}").shape == (3, 1)


@pytest.mark.parametrize("form", [False, True])
def test_parameters_are_bound_by_the_server(store_dsn: str, form: bool) -> None:
    with clickhouse_connect.get_client(dsn=store_dsn, form_encode_query_params=form) as client:
        for text in ("it's", "tab\there", "line\nbreak", "back\\slash", "{x:String}", ""):
            assert client.query("SELECT {x:String}", parameters={"x": text}).result_rows == [(text,)]
        found = client.query(
            "SELECT {d:Decimal(18, 12)}, {a:Array(UInt8)}, {n:Nullable(String)}",
            parameters={"d": Decimal("0.000000000001"), "a": [1, 2], "n": None},
        )
    assert found.result_rows == [(Decimal("0.000000000001"), [1, 2], None)]


def test_settings_of_one_query_do_not_leak_into_the_next(store_dsn: str) -> None:
    for session in (True, False):
        with clickhouse_connect.get_client(dsn=store_dsn, autogenerate_session_id=session) as client:
            ask = "SELECT getSetting('max_block_size'), getSetting('log_comment')"
            before = client.query(ask).result_rows
            settings = {"max_block_size": 77, "log_comment": "it's me"}
            assert client.query(ask, settings=settings).result_rows == [(77, "it's me")]
            assert client.query(ask).result_rows == before


def test_a_session_keeps_its_settings_database_and_tables(client: Client) -> None:
    client.command("SET max_block_size = 99")
    assert client.query("SELECT getSetting('max_block_size')", settings={"max_threads": 1}).result_rows == [(99,)]
    assert client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 5}).result_rows == [(5,)]
    assert client.query("SELECT getSetting('max_block_size')").result_rows == [(99,)]
    client.command("CREATE TEMPORARY TABLE mine (x UInt8)")
    client.insert("mine", [[1], [2]])
    assert client.command("SELECT sum(x) FROM mine") == 3


def test_sessions_do_not_see_each_other(store_dsn: str, client: Client) -> None:
    client.command("CREATE TEMPORARY TABLE mine (x UInt8)")
    with clickhouse_connect.get_client(dsn=store_dsn) as other, pytest.raises(DatabaseError) as raised:
        other.query("SELECT * FROM mine")
    assert raised.value.code == 60


def test_a_set_without_a_session_is_forgotten(store_dsn: str) -> None:
    with clickhouse_connect.get_client(dsn=store_dsn, autogenerate_session_id=False) as client:
        client.command("SET max_block_size = 12")
        assert client.command("SELECT getSetting('max_block_size')") != 12


def test_external_data_can_be_joined(client: Client) -> None:
    data = ExternalData(data=b"1,one\n2,two\n", file_name="words", fmt="CSV", structure=["n UInt8", "w String"])
    result = client.query("SELECT w FROM words WHERE n = {n:UInt8}", parameters={"n": 2}, external_data=data)
    assert result.result_rows == [("two",)]


@pytest.mark.parametrize(
    ("query", "settings", "code"),
    [
        ("SELECT * FROM nowhere", {}, 60),
        ("SELECT nothing", {}, 47),
        ("SELEC 1 2 3", {}, 62),
        ("SELECT throwIf(1)", {}, 395),
        ("SELECT 1", {"max_result_rows": 1, "nonsense_setting": 1}, 115),
        ("SELECT number FROM numbers(100)", {"max_result_rows": 10}, 396),
        ("SELECT sleepEachRow(0.1) FROM numbers(100)", {"max_execution_time": 1, "max_block_size": 1}, 159),
        ("SELECT groupArray(number) FROM numbers(10000000)", {"max_memory_usage": 1_000_000}, 241),
    ],
)
def test_errors_carry_clickhouses_code(store_dsn: str, query: str, settings: dict[str, int], code: int) -> None:
    # A setting that the client does not know is its own error; sent on regardless it has to be the store's.
    clickhouse_connect.common.set_setting("invalid_setting_action", "send")
    try:
        with clickhouse_connect.get_client(dsn=store_dsn) as client, pytest.raises(DatabaseError) as raised:
            client.query(query, settings=settings)
        assert raised.value.code == code
        assert "DB::Exception" in str(raised.value)
        # The same client goes on.
        assert clickhouse_connect.get_client(dsn=store_dsn).command("SELECT 1") == 1
    finally:
        clickhouse_connect.common.set_setting("invalid_setting_action", "error")


def test_a_failure_in_the_middle_of_a_stream_reaches_the_client(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    query = "SELECT throwIf(number = 900000, 'too far'), number FROM numbers(2000000)"
    with pytest.raises(StreamFailureError, match="too far"), client.query_rows_stream(query) as rows:
        for _ in rows:
            pass
    assert client.command("SELECT 1") == 1


def test_columns_of_a_query_are_known_without_running_it(client: Client) -> None:
    assert client.query("SELECT 1 AS a, 'x' AS b LIMIT 0").column_names == ("a", "b")


def test_a_wrong_password_is_said_to_be_wrong(store_process: RunningStore) -> None:
    with pytest.raises(DatabaseError) as raised:
        clickhouse_connect.get_client(dsn=store_process.dsn.replace(store_process.password, "guess"))
    assert raised.value.code == 516
    assert "password is incorrect" in str(raised.value)


def test_a_reader_reads_and_changes_nothing(store_process: RunningStore, client: Client, table: str) -> None:
    client.insert(table, ROWS)
    with clickhouse_connect.get_client(dsn=store_process.reader_dsn) as reader:
        assert reader.command(f"SELECT count() FROM {table}") == 3
        reader.command("CREATE TEMPORARY TABLE own (x UInt8)")
        for forbidden in (
            f"INSERT INTO {table} VALUES (1, 'x')",
            f"TRUNCATE TABLE {table}",
            f"ALTER TABLE {table} DELETE WHERE 1",
            f"DETACH TABLE {table}",
            "SET readonly = 0",
            f"SYSTEM STOP MERGES {table}",
        ):
            with pytest.raises(DatabaseError) as raised:
                reader.command(forbidden)
            assert raised.value.code in (164, 497), forbidden
        with pytest.raises(DatabaseError) as raised:
            reader.insert(table, ROWS)
        assert raised.value.code == 164
    assert client.command(f"SELECT count() FROM {table}") == 3


def test_many_threads_read_and_write_at_once(store_dsn: str, table: str) -> None:
    local = threading.local()

    def work(number: int) -> int:
        if not hasattr(local, "client"):
            local.client = clickhouse_connect.get_client(dsn=store_dsn, autogenerate_session_id=False)
        local.client.insert(table, [[number, f"word {number}"]], column_names=["number", "word"])
        found = local.client.query(
            "SELECT {n:UInt64}, getSetting('log_comment')", {"n": number}, {"log_comment": str(number)}
        )
        assert found.result_rows == [(number, str(number))]
        return number

    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(work, range(120)))
    with clickhouse_connect.get_client(dsn=store_dsn) as client:
        assert client.query(f"SELECT number FROM {table} ORDER BY number").result_columns == [
            tuple(done)
        ] or client.query(f"SELECT number FROM {table} ORDER BY number").result_columns == [done]
