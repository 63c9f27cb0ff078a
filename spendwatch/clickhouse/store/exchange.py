"""One request and its answer: which kind of statement it is, and the way that kind goes.

An INSERT with data is streamed into the engine and acknowledged after its commit; everything else is read whole, run,
and its result streamed out. A statement that only reads is stopped when its client leaves; one that writes never is.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from spendwatch.clickhouse.store.answer import Answer
from spendwatch.clickhouse.store.body import Body, ClientLeft, Form
from spendwatch.clickhouse.store.compression import chosen, packer
from spendwatch.clickhouse.store.engine import running
from spendwatch.clickhouse.store.errors import ACCESS_DENIED, INCORRECT_DATA, READONLY, SYNTAX_ERROR, Refusal, refusal
from spendwatch.clickhouse.store.request import Request
from spendwatch.clickhouse.store.run import Insert, Progress, Result, load_table
from spendwatch.clickhouse.store.statement import (
    Incomplete,
    InsertHead,
    first_words,
    insert_head,
    killed_query_ids,
    replace_query_id,
)
from spendwatch.clickhouse.store.users import User

if TYPE_CHECKING:
    from spendwatch.clickhouse.store.app import App, Running, Taken

T = TypeVar("T")

_HEAD_LIMIT = 1 << 20
_APPEND = 1 << 20


class Exchange:
    """One statement of an authenticated user."""

    def __init__(self, app: "App", request: Request, user: User, form: Form, body: Body, answer: Answer) -> None:
        self._app = app
        self._request = request
        self._user = user
        self._form = form
        self._body = body
        self._answer = answer

    async def run(self) -> None:
        """Read the statement, run it and answer. Raises Refusal, and ClientLeft."""
        sql, ended = await self._beginning()
        words = first_words(sql, 2)
        if not words and not sql.strip():
            raise refusal(SYNTAX_ERROR, "Syntax error (Empty query): expected a statement in the body or in ?query=.")
        if words[:1] == ("INSERT",):
            head, sql, ended = await self._insert_head(sql, ended=ended)
            if head is not None:
                await self._insert(head, sql[head.data_at :], ended=ended)
                return
        text = await self._text(sql, ended=ended)
        if words == ("KILL", "QUERY"):
            await self._kill(text)
        else:
            await self._query(text)

    # --- reading the statement ------------------------------------------------------------------------------------

    async def _beginning(self) -> tuple[bytes, bool]:
        """The statement of the URL, or so much of the body that its first word is in it; and whether that was all."""
        if self._request.query.strip():
            return self._request.query.encode(), False
        sql, ended = await self._body.read_at_least(16)
        while not ended and not first_words(sql, 2) and len(sql) < _HEAD_LIMIT:
            more, ended = await self._body.read_at_least(len(sql))
            sql += more
        return sql, ended

    async def _insert_head(self, sql: bytes, *, ended: bool) -> tuple[InsertHead | None, bytes, bool]:
        in_body = not self._request.query.strip()
        while True:
            try:
                head = insert_head(sql, complete=ended or not in_body)
                break
            except Incomplete:
                if len(sql) > _HEAD_LIMIT:
                    raise refusal(
                        SYNTAX_ERROR,
                        "Syntax error: no FORMAT, VALUES or SELECT at the beginning of an INSERT.",
                    ) from None
                more, ended = await self._body.read_at_least(len(sql))
                sql += more
        if head is not None and head.format == "Values" and self._request.query_params:
            head = None  # its values may name parameters, which only the engine's own parser puts in
        return head, sql, ended

    async def _text(self, sql: bytes, *, ended: bool) -> str:
        limit = self._app.limits.statement_bytes
        rest = b"" if ended else await self._body.read_all(limit)
        if self._request.query.strip() and rest:
            sql += b"\n"
        try:
            return (sql + rest).decode()
        except UnicodeDecodeError:
            raise refusal(INCORRECT_DATA, "The statement is not UTF-8.") from None

    # --- statements with a result ---------------------------------------------------------------------------------

    async def _query(self, sql: str) -> None:
        app = self._app
        async with app.place(self._user, self._answer.query_id) as entry:
            taken: list[Taken] = []

            async def leave() -> None:
                """Give the connection back, before the client can know that its statement is over: the next one in its
                session may come at once."""
                held, taken[:] = list(taken), []
                await _finished(app.thread(functools.partial(self._leave, held, entry)))

            left = asyncio.create_task(self._body.left())
            try:
                result, pieces = await self._unless_left(
                    app.thread(functools.partial(self._open, sql, entry, taken)), left, entry
                )
                self._answer.format = result.format
                if pieces is None and result.complete:
                    await leave()
                    await self._answer.whole(result.first, result.progress, self._request.accept_encoding)
                else:
                    await self._stream(result, pieces, left, leave)
            finally:
                left.cancel()
                await leave()

    def _open(self, sql: str, entry: "Running", taken: "list[Taken]") -> tuple[Result, Iterator[bytes] | None]:
        """Run a statement up to its first rows (blocking); with wait_end_of_query, to its end."""
        request = self._request
        held = self._app.take(request, self._user, entry)
        taken.append(held)
        entry.kind = self._app.engine.admit(held.link, sql, get=request.get)
        for name, data in self._form.files.items():
            held.link.spoiled = True
            load_table(held.link, name, request.tables[name], data)
        words = first_words(sql.encode(), 1)
        if held.session is None:
            held.link.spoiled = held.link.spoiled or entry.kind == "CONTROL"
        elif words in (("SET",), ("USE",)):
            held.session.note_set()
        faults_before = self._app.engine.write_faults() if words == ("INSERT",) else None
        result = Result(held.link, sql, entry.kind, request.default_format, request.query_params)
        if faults_before is not None:
            self._app.engine.check_written(faults_before)
        if held.session is not None and words == ("USE",):
            held.session.note_use()
        if result.complete and len(result.first) <= _APPEND:
            return result, None  # `first` is all of it; after spool() it is only the beginning
        return result, result.spool() if request.wait_end_of_query or result.complete else None

    def _leave(self, taken: "list[Taken]", entry: "Running") -> None:
        self._app.leave(taken[0] if taken else None, entry)

    async def _unless_left(self, work: Awaitable[T], left: "asyncio.Task[None]", entry: "Running") -> T:
        """Wait for a statement; when the client leaves, stop it if it only reads. Raises ClientLeft then."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            while not task.done():
                # Again and again: the first kill may come before the engine has begun.
                if entry.kind == "READ_ONLY":
                    with contextlib.suppress(Refusal):
                        await self._app.control(lambda: self._app.engine.kill(lambda: entry.link_name))
                await asyncio.wait({task}, timeout=0.2)
        finally:
            await _finished(task)
        raise ClientLeft

    async def _stream(
        self,
        result: Result,
        pieces: Iterator[bytes] | None,
        left: "asyncio.Task[None]",
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        encoding = chosen(self._request.accept_encoding)
        pack = packer(encoding)
        await self._answer.begin(result.progress, encoding)

        def following() -> bytes | None:
            if pieces is not None:
                return next(pieces, None)
            return None if result.complete else result.next_piece()

        try:
            piece: bytes | None = b"" if pieces is not None else result.first
            while piece is not None:
                packed = pack.pack(piece) if piece else b""
                if packed:
                    await self._answer.more(packed)
                if left.done():
                    raise ClientLeft
                piece = await self._app.thread(following)
            await leave()
            await self._answer.end(pack.finish())
        except Refusal as error:
            await self._answer.break_off(error, pack)
        finally:
            await _finished(self._app.thread(result.cancel))

    # --- statements with data -------------------------------------------------------------------------------------

    async def _insert(self, head: InsertHead, data: bytes, *, ended: bool) -> None:
        app = self._app
        if self._request.get:
            raise refusal(READONLY, "Cannot execute query in readonly mode. Use method POST to change something.")
        async with app.place(self._user, self._answer.query_id) as entry:
            taken: list[Taken] = []
            begun: list[Insert] = []
            try:
                if not ended:
                    more, ended = await self._body.read_at_least(max(1, _APPEND - len(data)))
                    data += more
                while not ended:
                    await app.thread(functools.partial(self._append, head, data, entry, taken, begun))
                    data, ended = await self._body.read_at_least(_APPEND)
                progress = await app.thread(functools.partial(self._finish, head, data, entry, taken, begun))
            finally:
                await _finished(app.thread(functools.partial(self._end_insert, entry, taken, begun)))
        await self._answer.whole(b"", progress, "")

    def _append(
        self, head: InsertHead, data: bytes, entry: "Running", taken: "list[Taken]", begun: list[Insert]
    ) -> Insert:
        """Hand on some data, beginning the INSERT with the first of it (blocking)."""
        if not begun:
            taken.append(self._app.take(self._request, self._user, entry))
            begun.append(Insert(self._app.engine, taken[0].link, head, self._request.query_params))
        if data:
            begun[0].append(data)
        return begun[0]

    def _finish(
        self, head: InsertHead, data: bytes, entry: "Running", taken: "list[Taken]", begun: list[Insert]
    ) -> Progress:
        insert = self._append(head, data, entry, taken, begun)
        insert.finish()
        return insert.progress

    def _end_insert(self, entry: "Running", taken: "list[Taken]", begun: list[Insert]) -> None:
        for insert in begun:
            insert.cancel()
        self._leave(taken, entry)

    # --- KILL QUERY -----------------------------------------------------------------------------------------------

    async def _kill(self, sql: str) -> None:
        """KILL QUERY, with the clients' query ids exchanged for what the engine knows. It needs no place of its own, so
        it works when all are taken."""
        app, request = self._app, self._request

        def work() -> Result:
            database = request.database or app.engine.database
            with app.engine.lease(database, request.settings, readonly=self._user.readonly) as link:
                kind = app.engine.admit(link, sql, get=request.get)
                with app.engine.killing():
                    statement = self._named_for_the_engine(sql)
                    return Result(link, statement, kind, request.default_format, request.query_params)

        result = await app.control(work)
        self._answer.format = result.format
        await self._answer.whole(result.first, result.progress, request.accept_encoding)

    def _named_for_the_engine(self, sql: str) -> str:
        own = False
        for query_id in killed_query_ids(sql):
            entry = self._app.running.get(query_id)
            if entry is None or not entry.link_name:
                continue
            own = entry.user == self._user.name
            sql = replace_query_id(sql, query_id, running(entry.link_name))
        if self._user.readonly and not own:
            raise refusal(ACCESS_DENIED, "Not enough privileges. A read-only user stops its own queries, by query_id.")
        return sql


async def _finished(work: Awaitable[object]) -> None:
    """Wait until a blocking call is over, even when this task is cancelled meanwhile: it holds a connection."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if not task.cancelled():
        task.exception()  # whoever waits for its result sees it
    if cancelled:
        raise asyncio.CancelledError
