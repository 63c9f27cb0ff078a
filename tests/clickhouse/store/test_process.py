"""The store as a process: starting, refusing to start, stopping, dying."""

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from spendwatch.clickhouse.store.process import listen
from tests.fixtures.store import RunningStore, start_store, store_command


@contextmanager
def running(folder: Path, *more: str, port: int = 0) -> Iterator[RunningStore]:
    store = start_store(folder, *more, port=port)
    try:
        yield store
    finally:
        store.stop()
        assert store.process.stdout is not None
        store.process.stdout.close()
        if store.process.stdin is not None:
            store.process.stdin.close()


def refused(command: list[str]) -> str:
    """What a store that can't start says; it must be one message without a traceback, and status 2."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in ("expected", "found"):
        assert word in lines[0]
    return lines[0]


def ask(store: RunningStore, sql: str, timeout: float = 60) -> bytes:
    address = urlsplit(store.url).netloc
    with closing(http.client.HTTPConnection(address, timeout=timeout)) as connection:
        headers = {"X-ClickHouse-User": "spendwatch", "X-ClickHouse-Key": store.password}
        connection.request("POST", "/", sql.encode(), headers)
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 200, body
        return body


def test_a_store_that_can_not_start_says_why(tmp_path: Path) -> None:
    command = store_command(tmp_path)
    data = command.index("--data") + 1
    password = command.index("--password-file") + 1

    def changed(position: int, value: str) -> list[str]:
        return [*command[:position], value, *command[position + 1 :]]

    (tmp_path / "in the way").write_text("")
    assert "--data" in refused(changed(data, str(tmp_path / "in the way" / "data")))
    assert "nowhere" in refused(changed(password, str(tmp_path / "nowhere")))
    (tmp_path / "empty").write_text("\n")
    assert "empty" in refused(changed(password, str(tmp_path / "empty")))
    (tmp_path / "users").write_text("nobody\n")
    assert "line 1" in refused(command)
    (tmp_path / "users").write_text("")
    assert "loopback" in refused([*command, "--bind", "0.0.0.0"])
    assert "default" in refused([*command, "--database", "default"])
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refused([*command, "--port", str(port)])


def test_a_second_store_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as store:
        message = refused(store_command(tmp_path))
        assert str(store.process.pid) in message
        assert ask(store, "SELECT 1") == b"1\n"


def test_a_store_told_to_stop_finishes_its_insert_and_keeps_its_rows(tmp_path: Path) -> None:
    with running(tmp_path) as store:
        ask(store, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
        address = urlsplit(store.url)
        with closing(http.client.HTTPConnection(address.netloc, timeout=60)) as connection:
            connection.putrequest("POST", f"/?query={quote('INSERT INTO t FORMAT CSV')}")
            connection.putheader("X-ClickHouse-User", "spendwatch")
            connection.putheader("X-ClickHouse-Key", store.password)
            connection.putheader("Content-Length", str(2_400_002))
            connection.endheaders(b"1\n")
            connection.send(b"22222\n" * 200_000)
            store.process.terminate()
            _until_refused(address.hostname, address.port)
            connection.send(b"22222\n" * 200_000)
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, b"")
        assert store.process.wait(60) == 0
    with running(tmp_path) as store:
        assert ask(store, "SELECT count() FROM t") == b"400001\n"


def test_a_read_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running(tmp_path) as store:
        slow = threading.Thread(
            target=_ask_in_vain, args=(store, "SELECT sleepEachRow(1) FROM numbers(600) SETTINGS max_block_size = 1")
        )
        slow.start()
        running_ = "SELECT count() FROM system.processes WHERE query LIKE '%numbers(600' || ')%'"
        while ask(store, running_) != b"1\n":
            time.sleep(0.05)
        assert store.stop() == 0
        slow.join()


def test_no_acknowledged_row_is_lost_when_the_store_is_killed(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for round_ in range(3):
        with running(tmp_path) as store:
            ask(store, "CREATE TABLE IF NOT EXISTS t (batch UInt64, row UInt64) ENGINE = MergeTree ORDER BY batch")
            stored = {int(line) for line in ask(store, "SELECT batch FROM t GROUP BY batch").split()}
            assert stored >= set(acknowledged)
            killed = threading.Event()

            def insert(
                writer: int, store: RunningStore = store, round_: int = round_, killed: threading.Event = killed
            ) -> None:
                batch = round_ * 1_000_000 + writer * 100_000
                while not killed.is_set():
                    batch += 1
                    try:
                        ask(store, f"INSERT INTO t SELECT {batch}, number FROM numbers(500)")
                    except (OSError, http.client.HTTPException):
                        return
                    acknowledged.append(batch)

            writers = [threading.Thread(target=insert, args=(writer,)) for writer in range(3)]
            for writer in writers:
                writer.start()
            enough = len(acknowledged) + 25
            while len(acknowledged) < enough:
                time.sleep(0.01)
            store.process.kill()
            killed.set()
            for writer in writers:
                writer.join()
            store.process.wait()
    with running(tmp_path) as store:
        found = ask(store, "SELECT batch, count() FROM t GROUP BY batch FORMAT TSV").split(b"\n")
        rows = {int(line.split()[0]): int(line.split()[1]) for line in found if line}
        assert {batch: rows.get(batch) for batch in acknowledged} == dict.fromkeys(acknowledged, 500)
        assert set(rows.values()) == {500}


def test_a_broken_part_stops_the_start_until_it_is_allowed(tmp_path: Path) -> None:
    with running(tmp_path) as store:
        ask(
            store,
            "CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a SETTINGS min_bytes_for_wide_part = 0",
        )
        ask(store, "INSERT INTO t SELECT number, toString(number) FROM numbers(1000)")
        ask(store, "INSERT INTO t SELECT number, toString(number) FROM numbers(10)")
    part = next(path for path in (tmp_path / "data" / "clickhouse" / "store").rglob("all_1_1_0") if path.is_dir())
    (part / "b.bin").write_bytes((part / "b.bin").read_bytes()[:10])
    message = refused(store_command(tmp_path))
    assert "spendwatch.t" in message
    assert "--allow-detached" in message
    with running(tmp_path, "--allow-detached") as store:
        assert ask(store, "SELECT count() FROM t") == b"10\n"
    assert "broken part" in (tmp_path / "log").read_text()


def test_fsync_is_a_choice(tmp_path: Path) -> None:
    with running(tmp_path, "--durability", "fsync") as store:
        ask(store, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
        ask(store, "INSERT INTO t VALUES (1)")
        value = ask(store, "SELECT value FROM system.merge_tree_settings WHERE name = 'fsync_after_insert'")
        assert value == b"1\n"


def test_a_store_may_end_with_its_parent(tmp_path: Path) -> None:
    process = subprocess.Popen(
        store_command(tmp_path, "--exit-with-parent"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as store:
        os.kill(store.process.pid, number)
        assert store.process.wait(60) == 0
    assert (tmp_path / "log").read_text() == ""


def _ask_in_vain(store: RunningStore, sql: str) -> None:
    with pytest.raises((AssertionError, OSError, http.client.HTTPException)):
        ask(store, sql)


def _until_refused(host: str | None, port: int | None) -> None:
    """Wait until the store takes no more connections: it has understood that it is to stop."""
    while True:
        try:
            socket.create_connection((host or "", port or 0), timeout=5).close()
        except OSError:
            return
        time.sleep(0.02)


def test_answers_are_sent_at_once() -> None:
    with closing(listen("127.0.0.1", 0)) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        # asyncio and uvloop look at this before they ask for the same on each connection.
        assert listener.proto == socket.IPPROTO_TCP
