"""A provider's HTTP end on loopback, written by the test: it answers what it is told, cut up as it is told.

It understands plain requests and those sent to a proxy, so that a client can be pointed at it under any host's name.
"""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Answer:
    """What to answer. chunks: the pieces of the body, each its own write; an iterator may wait in between.

    framing: length (Content-Length), chunked, close (ends with the connection). cut: after the pieces, drop the
    connection instead of ending the body.
    """

    chunks: Iterable[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    framing: str = "chunked"
    cut: bool = False
    drop: bool = False
    """Close the connection without any answer."""


class Loopback:
    """The server. `answers` decides by request; `seen` keeps them all."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: Callable[[Seen], Answer] = lambda seen: Answer(status=404)
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while owner._one(self):
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away is part of the tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def always(self, *chunks: bytes, **how: object) -> None:
        """Give the same answer to every request."""
        self.answers = lambda seen: Answer(chunks=chunks, **how)  # type: ignore[arg-type]

    def _one(self, handler: socketserver.StreamRequestHandler) -> bool:
        line = handler.rfile.readline()
        if not line.strip():
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := handler.rfile.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        seen = Seen(method, target, headers, self._body(handler, headers))
        self.seen.append(seen)
        answer = self.answers(seen)
        if answer.drop:
            return False
        out = handler.connection
        out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = dict(answer.headers)
        chunks: Iterator[bytes] = iter(answer.chunks)
        if answer.framing == "length":
            pieces = list(chunks)
            head["content-length"] = str(sum(map(len, pieces)) + (10 if answer.cut else 0))
            chunks = iter(pieces)
        elif answer.framing == "chunked":
            head["transfer-encoding"] = "chunked"
        else:
            head["connection"] = "close"
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        out.sendall("\r\n".join(lines).encode("latin-1"))
        for piece in chunks:
            out.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.framing == "chunked" and piece else piece)
        if answer.cut:
            return False
        if answer.framing == "chunked":
            out.sendall(b"0\r\n\r\n")
        return answer.framing != "close"

    @staticmethod
    def _body(handler: socketserver.StreamRequestHandler, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return handler.rfile.read(int(headers["content-length"]))
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(handler.rfile.readline(), 16):
                body += handler.rfile.read(size)
                handler.rfile.readline()
            handler.rfile.readline()
        return body
