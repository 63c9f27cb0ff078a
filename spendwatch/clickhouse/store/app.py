"""ClickHouse's HTTP interface as an ASGI application over one engine.

What a client sees (headers, codes, statuses, formats, what happens when something fails in the middle) is ClickHouse's,
so that any HTTP client of it works. Every blocking call runs in a thread; the event loop only moves bytes.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from spendwatch.clickhouse.store.body import Body, ClientLeft, Form, Receive, read_form
from spendwatch.clickhouse.store.compression import Packer, Unpacker, chosen, packer
from spendwatch.clickhouse.store.engine import Engine, Link, running
from spendwatch.clickhouse.store.errors import (
    BAD_ARGUMENTS,
    INCORRECT_DATA,
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    UNKNOWN_EXCEPTION,
    Refusal,
    refusal,
)
from spendwatch.clickhouse.store.request import Request, read_request
from spendwatch.clickhouse.store.run import Insert, Progress, Result
from spendwatch.clickhouse.store.sessions import Session, Sessions
from spendwatch.clickhouse.store.statement import (
    Incomplete,
    InsertHead,
    first_words,
    insert_head,
    killed_query_ids,
    replace_query_id,
)
from spendwatch.clickhouse.store.users import User, authenticate

logger = logging.getLogger("spendwatch.store")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

_HEAD_LIMIT = 256 * 1024
_APPEND = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client can take from the others. Sizes in bytes, times in seconds."""

    statement_bytes: int = 16 << 20
    form_bytes: int = 64 << 20
    concurrent: int = 32
    queue_s: float = 30.0
    client_idle_s: float = 60.0


@dataclass(slots=True)
class Running:
    """A statement at work, to be found by its query id."""

    user: str
    link_name: str = ""
    kind: str = ""


class App:
    """The ASGI application. Create it inside the running event loop's process, close() it when no request is left."""

    def __init__(self, engine: Engine, users: Mapping[str, User], limits: Limits) -> None:
        self._engine = engine
        self._users = users
        self._limits = limits
        self._sessions = Sessions(engine)
        self._slots = asyncio.Semaphore(limits.concurrent)
        self._threads = ThreadPoolExecutor(limits.concurrent, thread_name_prefix="statement")
        self._control = ThreadPoolExecutor(4, thread_name_prefix="control")
        self._running: dict[str, Running] = {}

    def close(self) -> None:
        """Wait for what still runs, then close the sessions. The engine stays open."""
        self._threads.shutdown()
        self._control.shutdown()
        self._sessions.close()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = Exchange(self, scope, headers, receive, send)
        await exchange.run()


class Exchange:
    """One request and its answer."""

    def __init__(
        self, app: App, scope: MutableMapping[str, Any], headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._engine = app._engine
        self._scope = scope
        self._headers = headers
        self._send = send
        self._body = Body(receive, idle_timeout_s=app._limits.client_idle_s)
        self._begun = False
        self._query_id = str(uuid.uuid4())
        self._format = "TabSeparated"
        self._tag = secrets.token_hex(8)

    async def run(self) -> None:
        """Answer the request; never raises for what a client or the engine did."""
        try:
            await self._answer()
        except ClientLeft:
            logger.info("%s: the client left", self._query_id)
        except Refusal as error:
            with contextlib.suppress(ClientLeft, Refusal):
                await self._body.drain()
            await self._refuse(error)
        except Exception:
            logger.exception("%s: the store failed", self._query_id)
            await self._refuse(
                refusal(UNKNOWN_EXCEPTION, "The store failed, which is a fault of the store: its log says more.")
            )

    async def _answer(self) -> None:
        path = self._scope["path"]
        if path in ("/ping", "/replicas_status"):
            await self._plain(200, b"Ok.\n")
            return
        if path != "/":
            await self._plain(404, b"There is no handle " + path.encode() + b"\n\nUse / or /ping for health checks.\n")
            return
        method = self._scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            await self._plain(405, b"Use GET or POST.\n")
            return
        if method != "POST" and not self._scope["query_string"] and "authorization" not in self._headers:
            await self._plain(200, b"Ok.\n")
            return
        encoding = self._headers.get("content-encoding", "").strip().lower()
        if encoding and encoding != "identity":
            self._body.unpack_with(Unpacker(encoding))
        bare = read_request(method, self._scope["query_string"], self._headers, {}, frozenset())
        user = authenticate(self._app._users, self._headers, bare.params)
        form = Form()
        if self._headers.get("content-type", "").lower().startswith("multipart/form-data"):
            body = await self._body.read_all(self._app._limits.form_bytes)
            form = read_form(self._headers["content-type"], body)
        request = (
            read_request(method, self._scope["query_string"], self._headers, form.fields, frozenset(form.files))
            if form.fields or form.files
            else bare
        )
        if request.query_id:
            self._query_id = request.query_id
        await self._statement(request, user, form)

    async def _statement(self, request: Request, user: User, form: Form) -> None:
        sql, data, ended = request.query.encode(), b"", False
        if not sql.strip():
            sql, ended = await self._body.read_at_least(1)
            while not ended and not first_words(sql, 1) and len(sql) < _HEAD_LIMIT:
                more, ended = await self._body.read_at_least(1)
                sql += more
            in_body = True
        else:
            in_body = False
        if not sql.strip():
            raise refusal(62, "Syntax error (Empty query): expected a statement in the body or in ?query=.")
        head = None
        if first_words(sql, 1) == ("INSERT",):
            while True:
                try:
                    head = insert_head(sql, complete=ended or not in_body)
                    break
                except Incomplete:
                    if len(sql) > self._app._limits.statement_bytes:
                        raise refusal(
                            62, "Syntax error: no FORMAT, VALUES or SELECT where an INSERT has one."
                        ) from None
                    more, ended = await self._body.read_at_least(1)
                    sql += more
            if head is not None and head.format == "Values" and request.query_params:
                head = None  # its values may name parameters, which only the engine's own parser knows
        if head is not None:
            data = sql[head.data_at :]
            await self._insert(request, user, head, data, ended=ended)
            return
        rest = b"" if ended else await self._body.read_all(self._app._limits.statement_bytes)
        sql = sql + rest if in_body else sql + (b"\n" + rest if rest else b"")
        try:
            text = sql.decode()
        except UnicodeDecodeError:
            raise refusal(INCORRECT_DATA, "The statement is not UTF-8.") from None
        if first_words(sql) == ("KILL", "QUERY"):
            await self._kill(request, user, text)
            return
        await self._select(request, user, text, form)

    @contextlib.asynccontextmanager
    async def _slot(self, user: User) -> Any:
        """One of the places for statements, and the entry under the query id."""
        if self._query_id in self._app._running:
            raise refusal(
                QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING, f"Query with id = {self._query_id} is already running."
            )
        running_ = self._app._running[self._query_id] = Running(user.name)
        try:
            try:
                async with asyncio.timeout(self._app._limits.queue_s):
                    await self._app._slots.acquire()
            except TimeoutError:
                raise refusal(
                    TOO_MANY_SIMULTANEOUS_QUERIES,
                    f"Too many simultaneous queries. Maximum: {self._app._limits.concurrent}, none ended within "
                    f"{self._app._limits.queue_s:g} s.",
                ) from None
            try:
                yield running_
            finally:
                self._app._slots.release()
        finally:
            del self._app._running[self._query_id]

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._app._threads, work)

    def _take(self, request: Request, user: User, running_: Running) -> tuple[Link, Session | None]:
        """A connection at the request's database and settings (blocking)."""
        readonly = user.readonly or (request.get and request.session_id is None)
        if request.session_id is None:
            link = self._engine.take(request.database or self._engine.database, request.settings, readonly=readonly)
            running_.link_name = link.name
            return link, None
        session = self._app._sessions.enter(
            user.name,
            request.session_id,
            timeout_s=request.session_timeout_s,
            check=request.session_check,
            readonly=readonly,
        )
        try:
            session.stand_at(request.database, request.settings)
        except Refusal:
            self._app._sessions.leave(session)
            raise
        running_.link_name = session.link.name
        return session.link, session

    def _leave(self, link: Link, session: Session | None) -> None:
        if session is None:
            self._engine.give_back(link)
        else:
            self._app._sessions.leave(session)

    # --- statements that answer with rows -------------------------------------------------------------------------

    async def _select(self, request: Request, user: User, sql: str, form: Form) -> None:
        async with self._slot(user) as running_:
            left = asyncio.create_task(self._body.left())
            held: list[tuple[Link, Session | None]] = []

            def open_() -> tuple[Result, Iterator[bytes] | None]:
                link, session = self._take(request, user, running_)
                held.append((link, session))
                running_.kind = self._engine.admit(link, sql, get=request.get)
                if form.files:
                    _load_tables(link, request, form)
                words = first_words(sql.encode(), 1)
                if session is not None and words in (("SET",), ("USE",)):
                    session.note_set()
                elif running_.kind == "CONTROL":
                    link.spoiled = session is None
                result = Result(link, sql, running_.kind, request.default_format, request.query_params)
                if session is not None and words == ("USE",):
                    session.note_use()
                return result, result.spool() if request.wait_end_of_query or result.complete else None

            def close() -> None:
                for link, session in held:
                    self._leave(link, session)

            try:
                result, pieces = await self._unless_left(self._thread(open_), left, running_)
                self._format = result.format
                if result.complete and len(result.first) <= _APPEND:
                    await self._whole(request, result.first, result.progress)
                else:
                    await self._stream(request, result, pieces, left)
            finally:
                left.cancel()
                await asyncio.shield(self._thread(close))

    async def _unless_left(self, work: Awaitable[T], left: "asyncio.Task[None]", running_: Running) -> T:
        """Wait for a statement; when the client leaves, stop it if it only reads."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        while not task.done():
            if running_.kind == "READ_ONLY" and running_.link_name:
                with contextlib.suppress(Refusal):
                    await asyncio.get_running_loop().run_in_executor(
                        self._app._control, self._engine.kill, running_.link_name
                    )
            await asyncio.wait({task}, timeout=0.2)
        with contextlib.suppress(Refusal):
            task.result()
        raise ClientLeft

    async def _stream(
        self, request: Request, result: Result, pieces: Iterator[bytes] | None, left: "asyncio.Task[None]"
    ) -> None:
        encoding = chosen(request.accept_encoding)
        pack = packer(encoding)
        await self._begin(200, result.progress, encoding)

        def next_() -> bytes | None:
            if pieces is not None:
                return next(pieces, None)
            return None if result.complete else result.next_piece()

        try:
            piece: bytes | None = b"" if pieces is not None else result.first
            while piece is not None:
                packed = pack.pack(piece) if piece else b""
                if packed:
                    await self._more(packed)
                if left.done():
                    raise ClientLeft
                piece = await self._thread(next_)
            await self._end(pack.finish())
        except Refusal as error:
            await self._break_off(error, pack)
        finally:
            await asyncio.shield(self._thread(result.cancel))

    async def _break_off(self, error: Refusal, pack: Packer) -> None:
        """Fail in the middle of an answer: the message in ClickHouse's __exception__ block, then no proper end."""
        text = self._worded(error).encode()
        block = b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (
            self._tag.encode(),
            text,
            len(text) + 1,
            self._tag.encode(),
        )
        await self._more(pack.pack(block) + pack.finish())

    # --- statements that carry data -------------------------------------------------------------------------------

    async def _insert(self, request: Request, user: User, head: InsertHead, data: bytes, *, ended: bool) -> None:
        async with self._slot(user) as running_:
            if not ended:
                more, ended = await self._body.read_at_least(max(0, _APPEND - len(data)))
                data += more
            held: list[tuple[Link, Session | None]] = []

            def open_() -> Insert:
                if request.get:
                    raise refusal(164, "Cannot execute query in readonly mode. Use method POST to change something.")
                link, session = self._take(request, user, running_)
                held.append((link, session))
                return Insert(self._engine, link, head, request.query_params)

            def close(insert: Insert | None) -> None:
                if insert is not None:
                    insert.cancel()
                for link, session in held:
                    self._leave(link, session)

            def all_at_once() -> Insert:
                insert = open_()
                try:
                    insert.append(data)
                    insert.finish()
                except BaseException:
                    insert.cancel()
                    raise
                return insert

            insert: Insert | None = None
            try:
                if ended:
                    progress = (await self._thread(all_at_once)).progress
                else:
                    insert = await self._thread(open_)
                    progress = insert.progress
                    while True:
                        await self._thread(lambda insert=insert, data=data: insert.append(data))  # type: ignore[misc]
                        if ended:
                            break
                        data, ended = await self._body.read_at_least(_APPEND)
                    await self._thread(insert.finish)
                    insert = None
            finally:
                await asyncio.shield(self._thread(lambda: close(insert)))
        await self._whole(request, b"", progress)

    async def _kill(self, request: Request, user: User, sql: str) -> None:
        """KILL QUERY, with the query ids of the clients exchanged for what the engine knows. Needs no place of its own,
        so it works when all are taken."""
        for query_id in killed_query_ids(sql):
            found = self._app._running.get(query_id)
            if found is not None and found.link_name:
                sql = replace_query_id(sql, query_id, running(found.link_name))

        def work() -> Result:
            with self._engine.lease(
                request.database or self._engine.database, request.settings, readonly=user.readonly
            ) as link:
                kind = self._engine.admit(link, sql, get=request.get)
                return Result(link, sql, kind, request.default_format, request.query_params)

        result = await asyncio.get_running_loop().run_in_executor(self._app._control, work)
        self._format = result.format
        await self._whole(request, result.first, result.progress)

    # --- answers --------------------------------------------------------------------------------------------------

    def _answer_headers(self, progress: Progress | None) -> list[tuple[bytes, bytes]]:
        headers = {
            "Content-Type": _CONTENT_TYPES.get(self._format, "application/octet-stream"),
            "X-ClickHouse-Server-Display-Name": "spendwatch-store",
            "X-ClickHouse-Query-Id": self._query_id,
            "X-ClickHouse-Format": self._format,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Exception-Tag": self._tag,
        }
        if progress is not None:
            headers["X-ClickHouse-Summary"] = json.dumps(progress.summary(), separators=(",", ":"))
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]

    async def _plain(self, status: int, body: bytes) -> None:
        self._begun = True
        headers = [(b"Content-Type", b"text/plain; charset=UTF-8"), (b"Content-Length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _whole(self, request: Request, body: bytes, progress: Progress) -> None:
        """An answer in one piece."""
        encoding = chosen(request.accept_encoding) if body else None
        if encoding is not None:
            pack = packer(encoding)
            body = pack.pack(body) + pack.finish()
        headers = self._answer_headers(progress)
        headers.append((b"Content-Length", str(len(body)).encode()))
        if encoding is not None:
            headers.append((b"Content-Encoding", encoding.encode()))
        self._begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _begin(self, status: int, progress: Progress, encoding: str | None) -> None:
        headers = self._answer_headers(progress)
        if encoding is not None:
            headers.append((b"Content-Encoding", encoding.encode()))
        self._begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _more(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data})

    def _worded(self, error: Refusal) -> str:
        return error.text if "(version " in error.text else f"{error.text} (version {self._engine.version})"

    async def _refuse(self, error: Refusal) -> None:
        if self._begun:
            return  # the answer is under way: its missing end says that it failed
        body = self._worded(error).encode() + b"\n"
        headers = self._answer_headers(None)
        headers[0] = (b"Content-Type", b"text/plain; charset=UTF-8")
        headers.append((b"Content-Length", str(len(body)).encode()))
        headers.append((b"X-ClickHouse-Exception-Code", str(error.code).encode()))
        if error.status == 401:
            headers.append((b"WWW-Authenticate", b'Basic realm="ClickHouse server HTTP API"'))
        self._begun = True
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


_CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "Pretty": "text/plain; charset=UTF-8",
}


def _load_tables(link: Link, request: Request, form: Form) -> None:
    """Make the request's external tables: temporary tables of a connection that is not used again (blocking)."""
    from spendwatch.clickhouse.store.run import load_table

    link.spoiled = True
    for name, data in form.files.items():
        described = request.tables[name]
        load_table(link, name, described, data)
