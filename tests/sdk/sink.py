"""An OTLP receiver on loopback that remembers the spans it took and misbehaves on demand."""

import contextlib
import gzip
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(slots=True)
class Post:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    request: ExportTraceServiceRequest
    body: bytes
    """As it was sent, but unzipped."""

    @property
    def spans(self) -> list[Span]:
        return [s for r in self.request.resource_spans for scoped in r.scope_spans for s in scoped.spans]


@dataclass(slots=True)
class Say:
    """What to answer: a status with headers, or nothing at all (hang: seconds before the connection is dropped)."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    rejected: int = 0
    hang_s: float = 0


class Sink:
    """The receiver. `posts` are all attempts, `taken` counts the spans it answered 2xx for, by span id."""

    def __init__(self, port: int = 0) -> None:
        self.posts: list[Post] = []
        self.taken: Counter[str] = Counter()
        self.spans: list[Span] = []
        self.services: list[str] = []
        self.say: Callable[[Post], Say] = lambda post: Say()
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                owner._open.append(self.connection)

            def do_POST(self) -> None:
                owner._post(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away is part of the tests."""

        self._server = Server(("127.0.0.1", port), Handler)
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
        self.close_all()  # a server that is gone answers nobody, kept-open connections included

    @property
    def connections(self) -> int:
        """How many connections were ever made to it."""
        return len(self._open)

    def close_all(self) -> None:
        """Drop every connection."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, count: int, timeout_s: float = 30) -> None:
        """Until so many different spans have been taken."""
        self.until(lambda: len(self.taken) >= count, timeout_s)

    def until(self, true: Callable[[], bool], timeout_s: float = 30) -> None:
        """Until the condition holds; checked at each request."""
        with self._changed:
            assert self._changed.wait_for(true, timeout_s), f"{len(self.taken)} spans, {len(self.posts)} requests"

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        if handler.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {k.lower(): v for k, v in handler.headers.items()}
        post = Post(handler.path, headers, ExportTraceServiceRequest.FromString(body), body)
        say = self.say(post)
        with self._changed:
            self.posts.append(post)
            if 200 <= say.status < 300 and not say.hang_s:
                self.spans.extend(post.spans)
                self.taken.update(span.span_id.hex() for span in post.spans)
                for resource in post.request.resource_spans:
                    found = {a.key: a.value.string_value for a in resource.resource.attributes}
                    self.services.append(found.get("service.name", ""))
            self._changed.notify_all()
        if say.hang_s:
            time.sleep(say.hang_s)
            handler.close_connection = True
            return
        answer = ExportTraceServiceResponse()
        if say.rejected:
            answer.partial_success.CopyFrom(ExportTracePartialSuccess(rejected_spans=say.rejected, error_message="no"))
        out = answer.SerializeToString()
        handler.send_response(say.status)
        for name, value in say.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(out)))
        handler.end_headers()
        handler.wfile.write(out)
