"""ClickHouse's HTTP interface as an ASGI application over one engine.

What a client sees (headers, codes, statuses, formats, what happens when something fails in the middle) is ClickHouse's,
so that any HTTP client of it works. Every blocking call runs in a thread; the event loop only moves bytes.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from spendwatch.clickhouse.store.answer import Answer, Send
from spendwatch.clickhouse.store.body import Body, ClientLeft, Form, Receive, read_form
from spendwatch.clickhouse.store.compression import Unpacker
from spendwatch.clickhouse.store.engine import Engine, Link
from spendwatch.clickhouse.store.errors import (
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    UNKNOWN_EXCEPTION,
    Refusal,
    refusal,
)
from spendwatch.clickhouse.store.exchange import Exchange
from spendwatch.clickhouse.store.request import Request, read_request
from spendwatch.clickhouse.store.sessions import Session, Sessions
from spendwatch.clickhouse.store.users import User, authenticate

logger = logging.getLogger("spendwatch.store")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client can take from the others. Sizes in bytes, times in seconds.

    statement: the longest text of a statement, without the data of an INSERT, which has no limit. form: the largest
    multipart body (external tables). queue: how long a statement waits for a place. client_idle: how long a client may
    neither send nor take a byte.
    """

    statement_bytes: int = 16 << 20
    form_bytes: int = 64 << 20
    concurrent: int = 32
    queue_s: float = 30.0
    client_idle_s: float = 60.0


@dataclass(slots=True)
class Running:
    """A statement at work. link_name: its connection's, "" before it has one and after it gave it back."""

    user: str
    link_name: str = ""
    kind: str = ""


class App:
    """The ASGI application, and what its requests share. close() it when no request is left."""

    def __init__(self, engine: Engine, users: Mapping[str, User], limits: Limits) -> None:
        self.engine = engine
        self.users = users
        self.limits = limits
        self.sessions = Sessions(engine)
        self.running: dict[str, Running] = {}
        self._places = asyncio.Semaphore(limits.concurrent)
        self._threads = ThreadPoolExecutor(limits.concurrent + 4, thread_name_prefix="statement")
        self._control = ThreadPoolExecutor(4, thread_name_prefix="control")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = Body(receive, idle_timeout_s=self.limits.client_idle_s)
        answer = Answer(send, self.engine.version, client_idle_s=self.limits.client_idle_s)
        try:
            await self._answer(scope, body, answer)
        except ClientLeft:
            logger.info("%s: the client left", answer.query_id)
        except Refusal as error:
            with contextlib.suppress(ClientLeft, Refusal):
                await body.drain(self.limits.form_bytes)
            await answer.refuse(error)
        except Exception:
            logger.exception("%s: the store failed", answer.query_id)
            await answer.refuse(
                refusal(UNKNOWN_EXCEPTION, "The store failed, which is a fault of the store: its log says more.")
            )

    async def _answer(self, scope: MutableMapping[str, Any], body: Body, answer: Answer) -> None:
        method, path, query_string = scope["method"], scope["path"], scope["query_string"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if path in ("/ping", "/replicas_status") or (path == "/" and method in ("GET", "HEAD") and not query_string):
            await answer.plain(200, b"Ok.\n")
            return
        if path != "/":
            await answer.plain(404, b"There is nothing here. Statements go to /, health checks to /ping.\n")
            return
        if method not in ("GET", "HEAD", "POST"):
            await answer.plain(405, b"Statements come by POST, or by GET when they only read.\n")
            return
        request = read_request(method, query_string, headers, Form())
        user = authenticate(self.users, headers, request.params)
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            body.unpack_with(Unpacker(encoding))
        form = Form()
        if headers.get("content-type", "").lower().startswith("multipart/form-data"):
            form = read_form(headers["content-type"], await body.read_all(self.limits.form_bytes))
            request = read_request(method, query_string, headers, form)
        if request.query_id:
            answer.query_id = request.query_id
        await Exchange(self, request, user, form, body, answer).run()

    @contextlib.asynccontextmanager
    async def place(self, user: User, query_id: str) -> AsyncIterator[Running]:
        """One of the places for statements, and its entry under the query id. Raises Refusal."""
        if query_id in self.running:
            raise refusal(QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING, f"Query with id = {query_id} is already running.")
        entry = self.running[query_id] = Running(user.name)
        try:
            try:
                async with asyncio.timeout(self.limits.queue_s):
                    await self._places.acquire()
            except TimeoutError:
                raise refusal(
                    TOO_MANY_SIMULTANEOUS_QUERIES,
                    f"Too many simultaneous queries. Maximum: {self.limits.concurrent}, and none ended within "
                    f"{self.limits.queue_s:g} s.",
                ) from None
            try:
                yield entry
            finally:
                self._places.release()
        finally:
            del self.running[query_id]

    def take(self, request: Request, user: User, entry: Running) -> "Taken":
        """A connection that stands at the request's database and settings (blocking). Raises Refusal."""
        if request.session_id is None:
            database = request.database or self.engine.database
            link = self.engine.take(database, request.settings, readonly=user.readonly or request.get)
            entry.link_name = link.name
            return Taken(link, None)
        session = self.sessions.enter(
            user.name,
            request.session_id,
            timeout_s=request.session_timeout_s,
            check=request.session_check,
            readonly=user.readonly,
        )
        try:
            session.stand_at(request.database, request.settings)
        except Refusal:
            self.sessions.leave(session)
            raise
        entry.link_name = session.link.name
        return Taken(session.link, session)

    def leave(self, taken: "Taken | None", entry: Running) -> None:
        """Give a connection back (blocking)."""
        entry.link_name = ""
        if taken is None:
            return
        if taken.session is None:
            self.engine.give_back(taken.link)
        else:
            self.sessions.leave(taken.session)

    async def thread(self, work: Callable[[], T]) -> T:
        """Run a blocking call of a statement."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def control(self, work: Callable[[], T]) -> T:
        """Run a blocking call that must get through when every place is taken."""
        return await asyncio.get_running_loop().run_in_executor(self._control, work)

    async def kill_reads(self) -> None:
        """Stop every statement that only reads."""
        for entry in [entry for entry in self.running.values() if entry.kind == "READ_ONLY"]:
            with contextlib.suppress(Refusal):
                await self.control(lambda entry=entry: self.engine.kill(lambda: entry.link_name))  # type: ignore[misc]

    def close(self) -> None:
        """Wait for what still runs, then close the sessions. The engine stays open (blocking)."""
        self._threads.shutdown()
        self._control.shutdown()
        self.sessions.close()


@dataclass(frozen=True, slots=True)
class Taken:
    """A connection a statement has, with its session when it is of one."""

    link: Link
    session: Session | None
