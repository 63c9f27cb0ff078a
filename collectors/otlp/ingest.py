"""The OTLP/HTTP endpoint as a bare ASGI application.

POST /v1/traces stores the calls to models among the spans and answers 200 only after ClickHouse has them. Every other
answer is one of OTLP's: 4xx means the same body can never be taken, 429 and 503 (with Retry-After) that the sender
keeps it and comes back. /v1/metrics and /v1/logs are accepted and dropped: spend is never made of them. Invariant:
nothing that a sender does costs more memory or time than `Limits` says. Never here: content, other people's names.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from collectors.otlp import answers
from collectors.otlp.answers import JSON, PROTOBUF, Answer
from collectors.otlp.body import (
    ENCODINGS,
    BodyBrokenError,
    BodyTooLargeError,
    BodyTooSlowError,
    DisconnectedError,
    receive_body,
)
from collectors.otlp.book import Book
from collectors.otlp.committer import BusyError, Committer
from collectors.otlp.limits import Limits
from collectors.otlp.metrics import Metrics
from collectors.otlp.reading import CONTENT_TYPES, Reader, Reading
from collectors.otlp.room import Hold, NoRoomError, Room
from collectors.otlp.spans import TooMuchError
from collectors.otlp.tokens import Tokens, bearer, look_up
from ledger.clickhouse import connection
from spendwatch.clickhouse import rows
from spendwatch.clickhouse.batch import Batch
from spendwatch.errors import OutsideError, ReadError, StoreError

log = logging.getLogger("spendwatch.collectors.otlp")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SIGNALS = ("/v1/traces", "/v1/metrics", "/v1/logs")
MAX_REASONS = 5
"""Different reasons named in one answer."""


class _RefusedError(Exception):
    """Carries the answer to a request that goes no further."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Ingest:
    """The application. One per process: it holds the queue, the thread that commits and the counters."""

    def __init__(self, limits: Limits | None = None, *, tokens: Callable[[], Tokens] = Tokens) -> None:
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self._room = Room(self.limits.held)
        self._make_tokens = tokens
        self._tokens: Tokens | None = None
        self._committer: Committer | None = None
        self._book = Book()
        self._reader = Reader(self.limits)
        self._readers = ThreadPoolExecutor(2, "read")
        self._probe = ThreadPoolExecutor(1, "probe")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection event of an ASGI server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                answer = await self._answer(scope, receive)
            except _RefusedError as refused:
                answer = refused.answer
            except DisconnectedError:
                return
            self.metrics.requests[answer.status] += 1
            await _respond(send, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._committer is not None and self._tokens is not None:
                    await self._committer.stop()
                    self._tokens.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _start(self) -> tuple[Committer, Tokens]:
        """The parts that belong to the running event loop, made at the first need."""
        if self._committer is None or self._tokens is None:
            self._committer = Committer(_insert, self.metrics, max_waiting=self.limits.waiting)
            self._tokens = self._make_tokens()
        return self._committer, self._tokens

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if path in _SIGNALS:
            if method != "POST":
                raise _RefusedError(
                    answers.failed(
                        405,
                        JSON,
                        f"expected POST to {path}, found {method}. Point an OTLP exporter here.",
                        allow="POST",
                    )
                )
            return await self._signal(path, dict(scope["headers"]), receive)
        if method not in ("GET", "HEAD"):
            return answers.failed(404, JSON, f"expected a path of {', '.join(_SIGNALS)}, found {path}.")
        if path == "/healthz":
            return Answer(200, "text/plain", b"ok\n")
        if path == "/readyz":
            return await self._ready()
        if path == "/metrics":
            return Answer(200, "text/plain; version=0.0.4", self.metrics.render(held_bytes=self._room.held))
        return answers.failed(404, JSON, f"expected a path of {', '.join(_SIGNALS)}, found {path}.")

    async def _ready(self) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(self._probe, _check), 5)
        except Exception as error:  # noqa: BLE001  # whatever is wrong is the answer
            # Nobody has logged in here: where our databases are and how they fail is for the log.
            log.warning("not ready: %s", str(error) or "no answer within 5 s")
            return Answer(503, "text/plain", b"not ready: the log says why\n")
        return Answer(200, "text/plain", b"ready\n")

    async def _signal(self, path: str, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        committer, tokens = self._start()
        content_type = headers.get(b"content-type", b"").decode("latin-1").split(";", 1)[0].strip().lower()
        if content_type not in CONTENT_TYPES:
            return answers.failed(
                415,
                JSON,
                f"expected content-type {PROTOBUF} or {JSON}, found {content_type or 'none'!r}. "
                "Set the exporter's protocol to http/protobuf (gRPC is not served).",
            )
        project = await _project(tokens, headers, content_type)
        encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        if encoding not in ENCODINGS:
            return answers.failed(
                415, content_type, f"expected content-encoding gzip, deflate or none, found {encoding!r}."
            )
        hold = Hold(self._room)
        try:
            body = await self._body(headers, content_type, receive, hold)
            if path != "/v1/traces":
                # An export response without fields is the same for every signal.
                return answers.stored(content_type)
            reading = await self._read(body, content_type, encoding, project, hold)
            del body
            return await self._commit(committer, reading, content_type)
        except NoRoomError:
            return _busy(content_type)
        finally:
            hold.give_back()

    async def _body(self, headers: dict[bytes, bytes], content_type: str, receive: Receive, hold: Hold) -> bytes:
        limits = self.limits
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            raise _RefusedError(
                answers.failed(411, content_type, "expected a content-length or chunked body, found neither. Send one.")
            )
        too_large = answers.failed(
            413,
            content_type,
            f"expected a body of at most {limits.body} bytes, found more. Send smaller batches, or compress with gzip.",
        )
        if length is not None and int(length) > limits.body:
            raise _RefusedError(too_large)
        try:
            return await receive_body(receive, limit=limits.body, timeout_s=limits.read_s, hold=hold.take)
        except BodyTooLargeError:
            raise _RefusedError(too_large) from None
        except BodyTooSlowError:
            # Not 408: exporters drop their spans at that, and a slow line is not the spans' fault.
            message = f"expected the whole body within {limits.read_s:g} s, found it unfinished. Send it again."
            raise _RefusedError(answers.failed(503, content_type, message, retry_after_s=5)) from None

    async def _read(self, body: bytes, content_type: str, encoding: str, project: str, hold: Hold) -> Reading:
        def work() -> Reading:
            return self._reader.read(
                body,
                content_type=content_type,
                encoding=encoding,
                project=project,
                book=self._book.current(),
                now=datetime.now(UTC),
                take=hold.take,
            )

        limit = self.limits.decoded
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except BodyTooLargeError:
            status = 413
            message = f"expected at most {limit} bytes after decompression, found more. Send smaller batches."
        except BodyBrokenError as error:
            status = 400
            message = f"expected content-encoding {encoding}, found broken data ({error}). Send the body as it says."
        except TooMuchError as error:
            status, message = 413, str(error)
        except ReadError as error:
            status, message = 400, str(error)
        raise _RefusedError(answers.failed(status, content_type, message))

    async def _commit(self, committer: Committer, reading: Reading, content_type: str) -> Answer:
        metrics = self.metrics
        metrics.received += reading.received
        metrics.ignored += reading.ignored
        rejected = reading.rejected
        if len(reading.batch):
            try:
                rejected = rejected + await committer.commit(reading.batch, timeout_s=self.limits.commit_s)
            except BusyError:
                return _busy(content_type)
            except TimeoutError:
                message = (
                    f"expected ClickHouse to commit within {self.limits.commit_s:g} s, found it slower. "
                    "Keep the spans and send them again: what is stored twice counts once."
                )
                return answers.failed(503, content_type, message, retry_after_s=5)
            except StoreError as error:
                # The sender is told that it must wait, not where our ClickHouse is and who logs into it.
                message = (
                    "expected to store the spans, found that ClickHouse does not take them now. "
                    "Keep them and send them again; the collector's log has the reason."
                )
                retry_after_s = max(1, round(error.retry_after_s or (30 if error.permanent else 2)))
                return answers.failed(503, content_type, message, retry_after_s=retry_after_s)
        metrics.rejected += len(rejected)
        return answers.stored(content_type, rejected=len(rejected), message=_reasons(rejected))


def _insert(batch: Batch) -> None:
    ch = connection("collectors.otlp")
    rows.insert(ch, batch.calls, received_at=datetime.now(UTC), tables=batch.tables)


def _check() -> None:
    """Raise what stands in the way of taking spans."""
    look_up("")
    connection("collectors.otlp.ready").query("ready", "SELECT count() FROM llm_calls WHERE 0")


async def _project(tokens: Tokens, headers: dict[bytes, bytes], content_type: str) -> str:
    secret = bearer(headers.get(b"authorization"))
    if secret is None:
        message = (
            "expected the header authorization: Bearer swt_…, found none. "
            "Set SPENDWATCH_TOKEN (or OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20swt_…)."
        )
        raise _RefusedError(answers.failed(401, content_type, message))
    try:
        project = await tokens.project(secret)
    except OutsideError as error:
        log.warning("%s", error)
        message = "expected to look up the token, found the database away. Keep the spans and send them again."
        raise _RefusedError(answers.failed(503, content_type, message, retry_after_s=5)) from None
    if project is None:
        message = (
            "expected a token of this server, found one that is unknown or revoked. "
            "Issue a new one under Ingest tokens in the admin and set SPENDWATCH_TOKEN."
        )
        raise _RefusedError(answers.failed(401, content_type, message))
    return project


def _busy(content_type: str) -> Answer:
    message = "expected room in the queue, found it full. Keep the spans and send them again."
    return answers.failed(429, content_type, message, retry_after_s=2)


def _reasons(rejected: Sequence[str]) -> str:
    """The different reasons, with how often each; the first few of them."""
    counts: dict[str, int] = {}
    for reason in rejected:
        counts[reason] = counts.get(reason, 0) + 1
    shown = [f"{number} x {reason}" for reason, number in list(counts.items())[:MAX_REASONS]]
    return "; ".join(shown + (["and others"] if len(counts) > MAX_REASONS else []))


async def _respond(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
