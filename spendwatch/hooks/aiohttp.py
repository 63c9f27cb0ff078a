"""The hook for aiohttp, and so for google-genai's async client and aiobotocore where they use it.

It stands between a session and its connector, below redirects and middlewares: each request that is to go over a
connection is one of its own, seen from the moment it asks for the connection. The body is read along where the app
reads it, from ClientResponse.content, decoded already unless the session says otherwise. Never here: what a body
means.
"""

import functools
from asyncio import IncompleteReadError
from collections.abc import Callable
from operator import attrgetter
from types import MemberDescriptorType
from typing import Any
from weakref import WeakKeyDictionary

from spendwatch.hooks import httpspans, seen
from spendwatch.hooks.exchange import Exchange, Sent, inside, open_exchange
from spendwatch.hooks.guard import shielded
from spendwatch.hooks.usage import Without
from spendwatch.recorder import Recorder
from spendwatch.wire import Request, may_be_call

_SHORT = 256
_NO_LIMIT = 2**40


class Hook:
    """The hook in aiohttp's client; its server is not touched."""

    def __init__(self, module: Any, recorder: Callable[[], Recorder | None]) -> None:
        self._connector = module.connector.BaseConnector
        self._response = module.client_reqrep.ClientResponse
        self._recorder = recorder
        self._body = body(module.StreamReader)
        self._hiding = hiding(module.StreamReader)
        self._asked: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()
        """Requests that ask for more than the app did -> the body that the app gave them."""
        self._sent: WeakKeyDictionary[Any, Sent] = WeakKeyDictionary()
        self._originals: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        """Put the hook in. Raises AttributeError when the module is of a version that has no place for it."""
        for owner, name, patch in (
            (self._connector, "connect", self._connect),
            (self._response, "start", self._start),
        ):
            original = getattr(owner, name)
            patched = patch(original)
            setattr(owner, name, patched)
            self._originals.append((owner, name, original, patched))

    def remove(self) -> None:
        """Take the hook out; where somebody has put another one over it since, it stays and does nothing."""
        for owner, name, original, patched in self._originals:
            if owner.__dict__.get(name) is patched:
                setattr(owner, name, original)
        self._originals = []

    def _connect(self, original: Any) -> Any:
        @functools.wraps(original)
        async def connect(connector: Any, req: Any, *args: Any, **options: Any) -> Any:
            recorder = self._recorder()
            exchange = self._open(recorder, req) if recorder is not None else None
            if exchange is None:
                return await original(connector, req, *args, **options)
            if exchange.question is not None and not self._ask(exchange.question, req):
                exchange.question = None
            http, added = exchange.http or (None, {})
            req.headers.update(added)
            try:
                connection = await original(connector, req, *args, **options)
            except BaseException as exc:
                if http is not None:
                    http.failed(exc)
                exchange.end(complete=False, error=exc)
                raise
            self._sent[connection] = Sent(exchange)
            return connection

        return connect

    def _start(self, original: Any) -> Any:
        @functools.wraps(original)
        async def start(response: Any, connection: Any, *args: Any, **options: Any) -> Any:
            sent = self._sent.pop(connection, None) if self._sent else None
            if sent is None:
                return await original(response, connection, *args, **options)
            exchange = sent.answered()
            http, _ = exchange.http or (None, {})
            # It lets go of the session when the reply is there in one piece.
            decodes = getattr(response._session, "auto_decompress", True)
            try:
                result = await original(response, connection, *args, **options)
            except BaseException as exc:
                if http is not None:
                    http.failed(exc)
                exchange.end(complete=False, error=exc)
                raise
            if http is not None:
                http.answered(response.status)
            self._watch(exchange, response, decodes)
            return result

        return start

    @shielded("looking at a request")
    def _open(self, recorder: Recorder, req: Any) -> Exchange | None:
        if not may_be_call(req.method, req.url.raw_path) or inside.get():
            return None
        url = req.url
        request = Request(
            method=req.method,
            host=(url.host or "").lower(),
            port=url.explicit_port,
            path=url.raw_path_qs,
            headers=seen.headers(req.headers.items()),
            body=self._asked.get(req) or _sent_body(req.body),
            default_port=url.port or 443,
        )
        exchange = open_exchange(recorder, request, http_span=httpspans.wanted(recorder.settings, "aiohttp"))
        if exchange is not None:
            exchange.begin_http(request, secure=url.scheme == "https")
        return exchange

    @shielded("asking for a stream's usage")
    def _ask(self, body: bytes, req: Any) -> bool:
        """Have the request ask for the stream's usage as well; False when it can't."""
        given = self._asked.get(req) or _sent_body(req.body)
        if given is None:
            return False
        # One request may be sent again by a middleware: then it asks already, and it was not the app that did.
        self._asked[req] = given
        if hasattr(req, "_update_body"):
            req._update_body(body)
        else:  # the first ones of 3.12
            req.headers.pop("Content-Length", None)
            req.update_body_from_data(body)
        req.headers["Accept-Encoding"] = "identity"
        return True

    @shielded("taking hold of a response")
    def _watch(self, exchange: Exchange, response: Any, decodes: bool) -> None:
        status = response.status
        if status < 200 or 300 <= status < 400:
            exchange.drop()
            return
        content = response.content
        # Newer versions count what was compressed, where they decode; older ones can only be asked what they would do.
        counted = getattr(content, "total_compressed_bytes", False)
        decoded = decodes if counted is False else counted is not None
        exchange.head(status, seen.headers(response.headers.items()), decoded=decoded)
        if content.at_eof():
            exchange.end(complete=True)
            return
        hide = exchange.question is not None and "content-encoding" not in response.headers
        response.content = (self._hiding if hide else self._body)(content, exchange)


def _sent_body(payload: Any) -> bytes | None:
    """The bytes of an aiohttp payload; None for one that has to be read or written to be seen."""
    if isinstance(payload, bytes):
        return payload
    value = getattr(payload, "_value", None)
    if value is not None:
        return seen.body(value)
    parts = getattr(payload, "_parts", None)
    return _form(parts) if parts else None


def _form(parts: Any) -> bytes:
    """A multipart form as far as it is of interest: each field's name, and the values that are short."""
    out = b""
    for part, *_ in parts:
        value = seen.body(getattr(part, "_value", None)) or b""
        name = part.headers.get("Content-Disposition", "").encode("utf-8", "replace")
        out += b"Content-Disposition: %b\r\n\r\n%b\r\n" % (name, value if len(value) <= _SHORT else b"")
    return out


def body(base: Any) -> Any:
    """The class of bodies that let the bytes by: a StreamReader of this aiohttp, in all but the bytes' watching."""

    class PassingReader(base):  # type: ignore[misc]
        """A response's content that is read along. What it doesn't watch, the original does."""

        __slots__ = ("_spendwatch_exchange", "_spendwatch_inner")

        def __init__(self, inner: Any, exchange: Exchange) -> None:
            self._spendwatch_inner = inner
            self._spendwatch_exchange = exchange

        def __getattr__(self, name: str) -> Any:
            # The base class's own slots are empty here, so they too are looked up in the original.
            if name.startswith("_spendwatch"):
                raise AttributeError(name)
            return getattr(self._spendwatch_inner, name)

        def __repr__(self) -> str:
            return repr(self._spendwatch_inner)

        def __del__(self) -> None:
            exchange = getattr(self, "_spendwatch_exchange", None)
            if exchange is not None:
                exchange.end(complete=False)

        def set_exception(self, exc: BaseException, *args: Any) -> None:
            # Only a response that is closed or released does this here; the connection's faults go to the original.
            self._spendwatch_inner.set_exception(exc, *args)
            self._spendwatch_exchange.end(complete=False)

        def _spendwatch_saw(self, data: bytes) -> None:
            if data:
                self._spendwatch_exchange.feed(data)
            if self._spendwatch_inner.at_eof():
                self._spendwatch_exchange.end(complete=True)

        async def read(self, n: int = -1) -> bytes:
            try:
                if n < 0:
                    # Their own loop over readany(), so what came before a fault has been seen.
                    whole: bytes = await base.read(self, n)
                    return whole
                data: bytes = await self._spendwatch_inner.read(n)
            except BaseException as exc:
                self._spendwatch_exchange.end(complete=False, error=exc)
                raise
            if n:
                self._spendwatch_saw(data)
            return data

        def read_nowait(self, *args: Any, **options: Any) -> bytes:
            data: bytes = self._spendwatch_inner.read_nowait(*args, **options)
            self._spendwatch_saw(data)
            return data

        async def readexactly(self, n: int) -> bytes:
            try:
                data: bytes = await self._spendwatch_inner.readexactly(n)
            except IncompleteReadError as exc:
                self._spendwatch_saw(exc.partial)
                raise
            except BaseException as exc:
                self._spendwatch_exchange.end(complete=False, error=exc)
                raise
            self._spendwatch_saw(data)
            return data

        async def readchunk(self) -> tuple[bytes, bool]:
            try:
                data, ends = await self._spendwatch_inner.readchunk()
            except BaseException as exc:
                self._spendwatch_exchange.end(complete=False, error=exc)
                raise
            self._spendwatch_saw(data)
            return data, ends

    for name in ("readany", "readline", "readuntil"):
        if hasattr(base, name):
            setattr(PassingReader, name, _reading(base, name))
    # These only call the reading methods on self; everything else works on the original's own state.
    left = {*vars(PassingReader), "iter_chunked", "iter_any", "iter_chunks", "__aiter__"}
    for name, value in vars(base).items():
        if callable(value) and name not in left and not name.startswith("__"):
            setattr(PassingReader, name, _handed_on(value, name))
        elif not name.startswith("__") and not callable(value) and not isinstance(value, MemberDescriptorType):
            # A property, or what older versions have as the class's default.
            setattr(PassingReader, name, property(attrgetter(f"_spendwatch_inner.{name}")))
    return PassingReader


def hiding(base: Any) -> Any:
    """The class of bodies that lack the event which request_stream_usage asked for.

    A StreamReader in its own right: what is to be read is laid into it, from the original, whenever it is empty.
    """

    class HidingReader(base):  # type: ignore[misc]
        """A response's content that is read along and handed on without that event."""

        __slots__ = ("_spendwatch_exchange", "_spendwatch_inner", "_spendwatch_without")

        def __init__(self, inner: Any, exchange: Exchange) -> None:
            # The original keeps the connection from sending too much; here nothing is ever too much.
            super().__init__(inner._protocol, _NO_LIMIT, loop=inner._loop)
            self._spendwatch_inner = inner
            self._spendwatch_exchange = exchange
            self._spendwatch_without = Without()

        def __del__(self) -> None:
            exchange = getattr(self, "_spendwatch_exchange", None)
            if exchange is not None:
                exchange.end(complete=False)

        async def _wait(self, func_name: str) -> None:  # noqa: ARG002  # as theirs
            inner, exchange, without = self._spendwatch_inner, self._spendwatch_exchange, self._spendwatch_without
            try:
                data = await inner.readany()
            except BaseException as exc:
                exchange.end(complete=False, error=exc)
                raise
            if data:
                exchange.feed(data)
            passed = without.feed(data)
            if inner.at_eof():
                exchange.end(complete=True)
                passed += without.close()
            if passed:
                self.feed_data(passed)
            if inner.at_eof():
                self._eof = True  # type: ignore[misc]  # a slot of the base class, which mypy can't see

        def exception(self) -> BaseException | None:
            found: BaseException | None = super().exception() or self._spendwatch_inner.exception()
            return found

        def set_exception(self, exc: BaseException, *args: Any) -> None:
            self._spendwatch_inner.set_exception(exc, *args)
            super().set_exception(exc, *args)
            self._spendwatch_exchange.end(complete=False)

        async def wait_eof(self) -> None:
            await self._spendwatch_inner.wait_eof()

        def on_eof(self, callback: Callable[[], None]) -> None:
            self._spendwatch_inner.on_eof(callback)

    return HidingReader


def _reading(base: Any, name: str) -> Any:
    @functools.wraps(getattr(base, name))
    async def method(self: Any, *args: Any, **options: Any) -> Any:
        # For every piece of every stream: as little as can be done here is.
        inner = self._spendwatch_inner
        try:
            data = await getattr(inner, name)(*args, **options)
        except BaseException as exc:
            self._spendwatch_exchange.end(complete=False, error=exc)
            raise
        if data:
            self._spendwatch_exchange.feed(data)
        if inner.at_eof():
            self._spendwatch_exchange.end(complete=True)
        return data

    return method


def _handed_on(value: Any, name: str) -> Any:
    @functools.wraps(value)
    def method(self: Any, *args: Any, **options: Any) -> Any:
        return getattr(self._spendwatch_inner, name)(*args, **options)

    return method
