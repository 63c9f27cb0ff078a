"""A collector on a free port of loopback, in this process, in front of the real store; and a way to talk to it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collectors.models import IngestToken, Project
from collectors.otlp.ingest import Ingest
from collectors.otlp.limits import Limits
from collectors.otlp.protocol import BoundedProtocol
from collectors.otlp.tokens import Tokens
from spendwatch.calls import LLMCall
from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp import otlp

PROTOBUF = "application/x-protobuf"


@dataclass
class Collector:
    """A running collector and one good token for it."""

    url: str
    app: Ingest
    token: str
    project: str
    http: httpx2.Client

    def post(
        self,
        body: bytes,
        *,
        path: str = "/v1/traces",
        content_type: str | None = PROTOBUF,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        sent = {"authorization": f"Bearer {token or self.token}", **(headers or {})}
        if content_type is not None:
            sent["content-type"] = content_type
        return self.http.post(self.url + path, content=body, headers=sent)

    def send(self, calls: Sequence[LLMCall]) -> httpx2.Response:
        return self.post(otlp.own_request(calls))

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


def partial_success(response: httpx2.Response) -> tuple[int, str]:
    """(rejected spans, message) of a 200, in either encoding."""
    assert response.status_code == 200, (response.status_code, response.content)
    if response.headers["content-type"] == "application/json":
        partial = response.json().get("partialSuccess", {})
        return int(partial.get("rejectedSpans", 0)), partial.get("errorMessage", "")
    message = ExportTraceServiceResponse.FromString(response.content)
    return message.partial_success.rejected_spans, message.partial_success.error_message


def status_message(response: httpx2.Response) -> tuple[int, str]:
    """(code, message) of a google.rpc.Status, in either encoding."""
    if response.headers["content-type"] == "application/json":
        return response.json()["code"], response.json()["message"]
    body = response.content
    assert body[0] == 0x08
    assert body[2] == 0x12
    start = 4 if body[3] < 0x80 else 5
    length = body[3] if body[3] < 0x80 else (body[3] & 0x7F) + (body[4] << 7)
    assert len(body) == start + length
    return body[1], body[start:].decode()


@contextmanager
def serving(app: Ingest) -> Iterator[str]:
    """The application on a port of its own, in a thread, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def make_collector(
    clickhouse: Connection, migrated_store_dsn: str, transactional_db: None, settings: Any
) -> Iterator[Callable[..., Collector]]:
    """Collectors with other limits than the usual ones, closed at the end of the test."""
    settings.SPENDWATCH_CLICKHOUSE_DSN = migrated_store_dsn
    project, _ = Project.objects.get_or_create(slug="shop", defaults={"name": "Shop"})
    _, secret = IngestToken.issue(project, "tests")
    with ExitStack() as stack:

        def make(*, remember_s: float = 10, **limits: Any) -> Collector:
            # A busy machine may take long for a commit; only tests about that are answered before it.
            app = Ingest(Limits(**{"commit_s": 100, **limits}), tokens=lambda: Tokens(remember_s=remember_s))
            http = stack.enter_context(httpx2.Client(timeout=120))
            url = stack.enter_context(serving(app))
            return Collector(url=url, app=app, token=secret, project="shop", http=http)

        yield make


@pytest.fixture
def collector(make_collector: Callable[..., Collector]) -> Collector:
    """A collector with the usual limits."""
    return make_collector()
