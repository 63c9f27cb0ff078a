"""Servers that answer badly, or not at all, and one day well: each call arrives once, and the app hears of it once."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spendwatch import config, otlp
from spendwatch.exporter import Exporter, Verdict, judge
from spendwatch.shipper import Shipper
from spendwatch.spool import Spool
from tests.sdk.calls import make_call
from tests.sdk.conftest import Run
from tests.sdk.sink import Post, Say, Sink
from tests.sdk.test_processes import free_port

Bad = Callable[[socket.socket], None]


@contextmanager
def server(port: int, bad: Bad) -> Iterator[list[int]]:
    """What listens on the port does to each connection, after the request's head, whatever `bad` does. Counts them."""
    connections: list[int] = []
    listener = socket.create_server(("127.0.0.1", port))
    open_: list[socket.socket] = []

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                head += data
            bad(connection)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(1)
                open_.append(connection)
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield connections
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
    while True:
        connection.sendall(b"\0")
        time.sleep(0.1)


def says(answer: bytes) -> Bad:
    return lambda connection: connection.sendall(answer)


# What it does -> whether it is tried again by itself (else it has refused, and is asked rarely).
BAD: dict[str, Bad] = {
    "closes at once": lambda connection: None,
    "is no web server": says(b"220 mail.example ESMTP ready\r\n"),
    "speaks TLS": says(b"\x15\x03\x01\x00\x02\x02\x46"),
    "sends noise": says(bytes(range(256)) * 64),
    "breaks off in the head": says(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "breaks off in the body": says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nab"),
    "breaks off in a chunk": says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\nab"),
    "has a senseless status": says(b"HTTP/1.1 OK fine\r\n\r\n"),
    "sends a head without an end": says(b"HTTP/1.1 200 OK\r\n" + b"x-y: z\r\n" * 200),
    "trickles": trickle,
    "redirects": says(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
    "knows no such path": says(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    "refuses the token": says(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"),
    "is a proxy that can't reach it": says(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"),
    "is in maintenance": says(b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"),
}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def shipping(port: int, tmp_path: Path) -> Iterator[tuple[Spool, Shipper]]:
    settings = config.resolve(
        endpoint=f"http://127.0.0.1:{port}", environ={"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "no_proxy": "*"}
    )
    spool = Spool(tmp_path, otlp.head(settings.resource), 1024 * 1024)
    shipper = Shipper(spool, Exporter(settings))
    yield spool, shipper
    shipper.stop()
    spool.close()


@pytest.mark.parametrize("kind", BAD)
def test_a_server_that_misbehaves_gets_each_call_once_it_behaves(
    kind: str, port: int, shipping: tuple[Spool, Shipper], caplog: pytest.LogCaptureFixture
) -> None:
    spool, shipper = shipping
    with server(port, BAD[kind]) as connections:
        for n in range(3):
            assert spool.append(otlp.record(make_call(n + 1)))
        for _ in range(3):
            began = time.monotonic()
            assert not shipper.flush(15, retry=False)
            assert time.monotonic() - began < 12  # it comes back, however the server draws it out
        assert connections
        assert spool.pending()
    with Sink(port) as sink:
        assert shipper.flush(30)
        assert len(sink.taken) == 3
        assert set(sink.taken.values()) == {1}
    assert shipper.lost == 0
    assert spool.dropped == 0
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) <= 2, [record.getMessage() for record in warned]  # not at each attempt


def test_a_record_that_is_refused_for_good_holds_up_no_other(
    port: int, shipping: tuple[Spool, Shipper], caplog: pytest.LogCaptureFixture
) -> None:
    spool, shipper = shipping

    def say(post: Post) -> Say:
        return Say(status=400) if any(span.trace_id.hex().endswith("05") for span in post.spans) else Say()

    with Sink(port) as sink:
        sink.say = say
        for n in range(20):
            assert spool.append(otlp.record(make_call(n + 1)))
        assert shipper.flush(30)
        assert len(sink.taken) == 19
        assert set(sink.taken.values()) == {1}
    assert shipper.lost == 1
    assert caplog.text.count("for good") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [("7", 7.0), ("0", 0.0), ("999999", 600.0), ("soon", None), ("-3", None), ("", None), (None, None)],
)
def test_retry_after_is_heeded_within_bounds(given: str | None, expected: float | None) -> None:
    outcome = judge(429, given, b"")
    assert (outcome.verdict, outcome.retry_after_s) == (Verdict.RETRY, expected)


def test_retry_after_may_be_a_date() -> None:
    outcome = judge(503, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60)), b"")
    assert outcome.retry_after_s is not None
    assert 50 < outcome.retry_after_s <= 60
    assert judge(503, "Sat, 01 Jan 2000 00:00:00 GMT", b"").retry_after_s == 0


def test_a_server_that_says_when_is_not_asked_before(port: int, shipping: tuple[Spool, Shipper]) -> None:
    spool, shipper = shipping
    with Sink(port) as sink:
        asked: list[float] = []

        def say(post: Post) -> Say:
            asked.append(time.monotonic())
            return Say(status=429, headers={"retry-after": "2"}) if len(asked) == 1 else Say()

        sink.say = say
        assert spool.append(otlp.record(make_call()))
        shipper.poke()
        sink.wait_for(1)
        assert len(asked) == 2
        assert asked[1] - asked[0] >= 1.9


def test_the_app_is_as_fast_while_the_server_is_slow(run: Run, sink: Sink) -> None:
    def slow(post: Post) -> Say:
        time.sleep(3)
        return Say()

    sink.say = slow
    program = """
    spendwatch.instrument()
    call(1)
    time.sleep(1.5)  # by now the server is being slow
    began = time.monotonic()
    call(40)
    print(time.monotonic() - began < 30, flush=True)
    print(spendwatch.flush(60))
    """
    out, err = run(program, sink.url).communicate(timeout=120)
    assert out == "True\nTrue\n", err
    assert len(sink.taken) == 41
    assert set(sink.taken.values()) == {1}
