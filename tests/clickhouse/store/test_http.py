"""ClickHouse's HTTP interface, byte by byte: what curl and clients of other languages rely on."""

import base64
import gzip
import http.client
import json
import secrets
import socket
import threading
import time
import zlib
from contextlib import closing
from urllib.parse import urlencode, urlsplit

import lz4.frame
import pytest
from clickhouse_connect.driver.client import Client

from tests.clickhouse.store.conftest import Fetch
from tests.fixtures.store import RunningStore


def test_ping_needs_no_password(fetch: Fetch) -> None:
    for path in ("/ping", "/replicas_status", "/"):
        reply = fetch(path=path, user=None)
        assert (reply.status, reply.body) == (200, b"Ok.\n")
    assert fetch(path="/elsewhere").status == 404
    assert fetch(b"x", method="PUT").status == 405


@pytest.mark.parametrize("how", ["headers", "basic", "url"])
def test_credentials_come_by_any_of_three_ways(fetch: Fetch, store_process: RunningStore, how: str) -> None:
    for password, status, code in ((store_process.password, 200, None), ("guess", 403, 516)):
        if how == "headers":
            reply = fetch("SELECT 1", password=password)
        elif how == "basic":
            value = base64.b64encode(f"spendwatch:{password}".encode()).decode()
            reply = fetch("SELECT 1", user=None, headers={"Authorization": f"Basic {value}"})
        else:
            reply = fetch("SELECT 1", path=f"/?user=spendwatch&password={password}", user=None)
        assert (reply.status, reply.code) == (status, code)


def test_a_request_without_credentials_is_asked_for_them(fetch: Fetch) -> None:
    reply = fetch("SELECT 1", user=None)
    assert (reply.status, reply.code) == (401, 516)
    assert reply.headers["WWW-Authenticate"].startswith("Basic")
    assert fetch("SELECT 1", user="nobody").status == 403


def test_the_statement_is_in_the_url_the_body_or_both(fetch: Fetch) -> None:
    assert fetch(query="SELECT 1").body == b"1\n"
    assert fetch("SELECT 2").body == b"2\n"
    assert fetch("+ 3", query="SELECT 1").body == b"4\n"
    assert fetch("SELECT 1", default_format="JSONEachRow").body == b'{"1":1}\n'
    assert fetch("SELECT 1 FORMAT CSVWithNames", default_format="JSON").body == b'"1"\n1\n'
    assert fetch("SELECT 'FORMAT JSON' AS x -- FORMAT JSON").body == b"FORMAT JSON\n"
    empty = fetch("  ")
    assert (empty.status, empty.code) == (400, 62)


def test_the_head_tells_what_was_done(fetch: Fetch) -> None:
    reply = fetch("SELECT number FROM numbers(10) FORMAT JSONEachRow", query_id="mine-1", wait_end_of_query="1")
    assert reply.headers["X-ClickHouse-Query-Id"] == "mine-1"
    assert reply.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert reply.headers["X-ClickHouse-Timezone"] == "UTC"
    assert reply.headers["Content-Type"].startswith("application/x-ndjson")
    summary = json.loads(reply.headers["X-ClickHouse-Summary"])
    assert (summary["result_rows"], summary["read_rows"]) == ("10", "10")
    assert int(summary["elapsed_ns"]) > 0


def test_a_query_id_writes_no_header_of_its_own(fetch: Fetch) -> None:
    reply = fetch("SELECT 1", query_id="a\r\nX-Evil: 1")
    assert reply.headers["X-Evil"] is None
    assert reply.headers["X-ClickHouse-Query-Id"] == "a??X-Evil: 1"


def test_get_changes_nothing(fetch: Fetch, table: str) -> None:
    for query in (
        f"INSERT INTO {table} VALUES (1, 'x')",
        f"TRUNCATE TABLE {table}",
        f"DETACH TABLE {table}",
        f"CREATE TABLE {table}_2 (x UInt8) ENGINE = Memory",
    ):
        for more in ({}, {"session_id": secrets.token_hex(8)}):
            assert fetch(query=query, **more).code == 164, query
    assert fetch(query=f"SELECT count() FROM {table}").body == b"0\n"


def test_insert_data_follows_the_head_in_url_or_body(fetch: Fetch, table: str) -> None:
    assert fetch(f'INSERT INTO {table} FORMAT CSV\n1,"a"\n').status == 200
    assert fetch('2,"b"\n', query=f"INSERT INTO {table} FORMAT CSV").status == 200
    assert fetch("(3, 'c'), (4, {w:String})", query=f"INSERT INTO {table} VALUES", param_w="d").status == 200
    assert fetch(f"INSERT INTO {table} VALUES (5, 'e')").status == 200
    assert fetch(f"INSERT INTO {table} SELECT 6, 'f'").status == 200
    assert (
        fetch(f"insert /* FORMAT */ into {table} (number, word)\n settings max_threads = 1\tformat  TSV 7\tg\n").status
        == 200
    )
    reply = fetch("8,h", query="INSERT INTO {t:Identifier} FORMAT CSV", param_t=table)
    assert json.loads(reply.headers["X-ClickHouse-Summary"])["written_rows"] == "1"
    found = fetch(f"SELECT groupArray(word) FROM (SELECT * FROM {table} ORDER BY number)").body
    assert found == b"['a','b','c','d','e','f','g','h']\n"


def test_a_refused_insert_stores_nothing(fetch: Fetch, table: str) -> None:
    for body, code in (("1,a\nx,b\n", 27), ("", None)):
        reply = fetch(body, query=f"INSERT INTO {table} FORMAT CSV")
        assert reply.code == code
    assert fetch("1,a", query="INSERT INTO nowhere FORMAT CSV").code == 60
    assert fetch("1,a", query=f"INSERT INTO {table} (nothing) FORMAT CSV").code == 16
    assert fetch("1,a", query=f"INSERT INTO {table} FORMAT Nonsense").code == 73
    large = b"1,a\n" * 500_000 + b"x,b\n"
    assert fetch(large, query=f"INSERT INTO {table} FORMAT CSV").code == 27
    assert fetch("SELECT 1").body == b"1\n"


def test_a_large_insert_streams(fetch: Fetch, table: str) -> None:
    rows = b"".join(b"%d,word\n" % number for number in range(400_000))
    reply = fetch(rows, query=f"INSERT INTO {table} FORMAT CSV")
    assert json.loads(reply.headers["X-ClickHouse-Summary"])["written_rows"] == "400000"


def test_an_insert_that_its_client_breaks_off_is_not_stored(
    fetch: Fetch, store_process: RunningStore, table: str
) -> None:
    address = urlsplit(store_process.url)
    head = (
        f"POST /?query=INSERT+INTO+{table}+FORMAT+CSV HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: spendwatch\r\n"
        f"X-ClickHouse-Key: {store_process.password}\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"1,a\n" * 1000)
    assert fetch("SELECT 1").body == b"1\n"
    assert fetch(f"SELECT count() FROM {table}").body == b"0\n"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_bodies_are_compressed_as_their_encoding_says(fetch: Fetch, table: str, encoding: str) -> None:
    from clickhouse_connect.driver.compression import _zstd_decompress, get_compressor

    pack = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "lz4": lz4.frame.compress,
        "zstd": lambda data: get_compressor("zstd").compress_block(data),
    }[encoding]
    unpack = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "lz4": lz4.frame.decompress,
        "zstd": _zstd_decompress,
    }[encoding]
    rows = b"".join(b"%d,word\n" % number for number in range(50_000))
    packed = pack(rows[: len(rows) // 2]) + (pack(rows[len(rows) // 2 :]) if encoding != "deflate" else b"")
    sent = rows if encoding != "deflate" else rows[: len(rows) // 2]
    if encoding == "deflate":
        sent = sent[: sent.rindex(b"\n") + 1]
        packed = pack(sent)
    reply = fetch(packed, query=f"INSERT INTO {table} FORMAT CSV", headers={"Content-Encoding": encoding})
    assert reply.status == 200, reply.body
    reply = fetch(f"SELECT number, word FROM {table} ORDER BY number FORMAT CSV", headers={"Accept-Encoding": encoding})
    assert reply.headers["Content-Encoding"] == encoding
    assert unpack(reply.body).replace(b'"', b"") == sent
    small = fetch("SELECT 1", headers={"Accept-Encoding": f"br, {encoding};q=0.5"})
    assert unpack(small.body) == b"1\n"
    plain = fetch("SELECT 1", headers={"Accept-Encoding": encoding}, enable_http_compression="0")
    assert plain.body == b"1\n"
    cut = fetch(packed[:-5], query=f"INSERT INTO {table} FORMAT CSV", headers={"Content-Encoding": encoding})
    assert cut.code == 271
    bad = fetch(b"not packed", headers={"Content-Encoding": encoding})
    assert bad.code == 271


def test_an_unknown_encoding_is_named(fetch: Fetch) -> None:
    reply = fetch(b"SELECT 1", headers={"Content-Encoding": "snappy"})
    assert reply.code == 89
    assert b"snappy" in reply.body


def test_a_session_is_free_as_soon_as_its_statement_is_answered(store_process: RunningStore) -> None:
    # Settings of one statement's own have to be taken back after it: that must not be left for after the answer.
    settings = {"max_block_size": "5000", "max_threads": "1", "max_insert_block_size": "7", "max_columns_to_read": "9"}
    query = urlencode({"session_id": secrets.token_hex(8), **settings})
    sent = {"X-ClickHouse-User": "spendwatch", "X-ClickHouse-Key": store_process.password}
    with closing(http.client.HTTPConnection(urlsplit(store_process.url).netloc, timeout=60)) as connection:
        for rows in (1, 30_000) * 150:
            connection.request("POST", f"/?{query}", f"SELECT number FROM numbers({rows}) FORMAT TSV".encode(), sent)
            answer = connection.getresponse()
            assert (answer.read().count(b"\n"), answer.status) == (rows, 200)


def test_sessions_are_locked_checked_and_their_users_own(fetch: Fetch) -> None:
    session = secrets.token_hex(8)
    assert fetch("SELECT 1", session_id=session, session_check="1").code == 372
    assert fetch("CREATE TEMPORARY TABLE mine (x UInt8)", session_id=session).status == 200
    assert fetch("SELECT count() FROM mine", session_id=session, session_check="1").body == b"0\n"
    assert fetch("SELECT count() FROM mine", session_id=session, user="reader").code == 60
    codes: set[int | None] = set()
    long = "SELECT sleepEachRow(0.2) FROM numbers(5) SETTINGS max_block_size = 1"
    busy = threading.Thread(target=lambda: codes.add(fetch(long, session_id=session).code))
    busy.start()
    while busy.is_alive():
        codes.add(fetch("SELECT 1", session_id=session).code)
    busy.join()
    # Whichever of the two came while the other was at work was refused.
    assert 373 in codes
    assert fetch("SELECT 1", session_id=session, session_timeout="x").code == 36


def test_a_query_is_killed_by_the_id_its_client_gave_it(fetch: Fetch) -> None:
    query_id = f"slow-{secrets.token_hex(4)}"
    query = f"SELECT '{query_id}', sleepEachRow(1) FROM numbers(60) SETTINGS max_block_size = 1"
    replies = []
    slow = threading.Thread(target=lambda: replies.append(fetch(query, query_id=query_id, wait_end_of_query="1")))
    slow.start()
    running = f"SELECT count() FROM system.processes WHERE query LIKE '%{query_id[:9]}' || '{query_id[9:]}%'"
    _until(lambda: fetch(running).body == b"1\n")
    assert fetch("SELECT 1", query_id=query_id).code == 216
    assert fetch(f"KILL QUERY WHERE query_id = '{query_id}'", user="reader").code == 497
    while slow.is_alive():
        assert fetch(f"KILL QUERY WHERE query_id = '{query_id}' ASYNC").status == 200
        slow.join(0.1)
    assert replies[0].code == 394


def test_a_query_nobody_waits_for_is_stopped(fetch: Fetch, store_process: RunningStore) -> None:
    address = urlsplit(store_process.url)
    mark = secrets.token_hex(8)
    query = f"SELECT '{mark}', sum(sleepEachRow(1)) FROM numbers(100) SETTINGS max_block_size = 1"
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: spendwatch\r\n"
        f"X-ClickHouse-Key: {store_process.password}\r\nContent-Length: {len(query)}\r\n\r\n{query}"
    )
    running = f"SELECT count() FROM system.processes WHERE query LIKE '%{mark[:8]}' || '{mark[8:]}%'"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode())
        _until(lambda: fetch(running).body == b"1\n")
    _until(lambda: fetch(running).body == b"0\n")


def test_an_answer_that_fails_in_the_middle_has_no_end(fetch: Fetch) -> None:
    import http.client

    with pytest.raises(http.client.IncompleteRead) as raised:
        fetch("SELECT throwIf(number = 900000, 'too far'), number FROM numbers(2000000) FORMAT CSV")
    assert b"__exception__" in raised.value.partial
    assert b"Code: 395" in raised.value.partial
    whole = fetch(
        "SELECT throwIf(number = 900000, 'too far'), number FROM numbers(2000000) FORMAT CSV", wait_end_of_query="1"
    )
    assert (whole.status, whole.code) == (500, 395)


def test_large_answers_arrive_whole_in_every_way(fetch: Fetch) -> None:
    query = "SELECT number, repeat('x', 20) FROM numbers(200000)"
    for more in ({}, {"wait_end_of_query": "1"}):
        for format in ("CSV", "CSVWithNames", "TSVWithNamesAndTypes"):
            body = fetch(f"{query} FORMAT {format}", **more).body
            heads = {"CSV": 0, "CSVWithNames": 1, "TSVWithNamesAndTypes": 2}[format]
            assert body.count(b"\n") == 200_000 + heads
    rows = json.loads(fetch(f"{query} FORMAT JSON").body)
    assert rows["rows"] == 200_000


def test_only_one_statement_is_taken(fetch: Fetch) -> None:
    assert fetch("SELECT 1; SELECT 2").code == 62
    assert fetch("SELECT 1;").body == b"1\n"
    reply = fetch("SELECT (1")
    assert reply.code == 62
    assert b"Unmatched parentheses" in reply.body
    assert b"formatQuery" not in reply.body


def test_a_statement_larger_than_its_limit_is_refused(fetch: Fetch) -> None:
    reply = fetch(b"SELECT '" + b"x" * (17 << 20) + b"'")
    assert (reply.status, reply.code) == (413, 229)
    assert fetch(b"INSERT INTO t (" + b"x" * (3 << 20)).code == 62


def test_bytes_that_are_no_text_are_refused(fetch: Fetch) -> None:
    assert fetch(b"SELECT '\xff\xfe'").code == 117
    assert fetch(b"--x\r\nbad", headers={"Content-Type": "multipart/form-data"}).code == 36
    assert fetch(b"--y\r\nbad", headers={"Content-Type": "multipart/form-data; boundary=x"}).code == 36
    assert fetch("SELECT 1", role="admin").code == 512


def test_block_compression_is_refused_rather_than_ignored(fetch: Fetch) -> None:
    for name in ("compress", "decompress"):
        reply = fetch("SELECT 1", **{name: "1"})
        assert (reply.status, reply.code) == (501, 48)
    assert fetch("SELECT 1", compress="0").body == b"1\n"


def _until(true: "object", tries: int = 300) -> None:
    for _ in range(tries):
        if true():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def test_settings_come_by_url(client: Client, fetch: Fetch) -> None:
    assert fetch("SELECT getSetting('log_comment')", log_comment="a 'b' \\c").body == b"a \\'b\\' \\\\c\n"
    assert fetch("SELECT 1", nonsense="1").code == 115
    assert fetch("SELECT 1", database="nowhere").code == 497
    assert fetch("SELECT currentDatabase()", database="system").body == b"system\n"
    assert fetch("SELECT currentDatabase()", headers={"X-ClickHouse-Database": "system"}).body == b"system\n"
    assert fetch("SELECT currentDatabase()").body == b"spendwatch\n"
