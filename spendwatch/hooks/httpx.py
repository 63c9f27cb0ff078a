"""The hook for httpx and httpx2: every request that one of their clients sends passes here, below auth and redirects.

It stands between a client and the transport the client chose for the address, so it sees custom transports, mounts,
proxies and test doubles alike, each attempt of an SDK's retries as a request of its own, and bodies as they come over
the wire. A transport that itself retries counts as one request; a reply that a caching transport says it kept is no
call. One code for both modules; they share names but no classes. Never here: what a body means.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from spendwatch.hooks import httpspans, usage
from spendwatch.hooks.exchange import Exchange, inside, open_exchange
from spendwatch.hooks.guard import caught, shielded
from spendwatch.hooks.seen import form, raw_headers
from spendwatch.hooks.stream import PassingAsync, PassingSync, bodies
from spendwatch.recorder import Recorder
from spendwatch.wire import Request, may_be_call

_FROM_CACHE = ("from_cache", "hishel_from_cache")
"""What hishel, the caching transport for both, marks a kept response with."""


def _fields(stream: Any) -> bytes | None:
    """The short fields of a form that is yet to be written (an upload through an SDK); None for any other body."""
    fields = getattr(stream, "fields", None)
    if not isinstance(fields, list):
        return None
    pairs = ((field.name, getattr(field, "value", b"")) for field in fields)
    return form((name.encode(), value if isinstance(value, bytes) else str(value).encode()) for name, value in pairs)


class Hook:
    """The hook in one module, httpx or httpx2."""

    def __init__(self, module: Any, recorder: Callable[[], Recorder | None]) -> None:
        self._module = module
        self._recorder = recorder
        self._name: str = module.__name__
        self._sync_body, self._async_body = bodies(module)
        self._sync_base, self._async_base = module.SyncByteStream, module.AsyncByteStream
        self._originals: list[tuple[Any, Any, Any]] = []
        self._not_read: type[Exception] = module.RequestNotRead

    def install(self) -> None:
        """Put the hook in. Raises AttributeError when the module is of a version that has no place for it."""
        for client, between in ((self._module.Client, _Sync), (self._module.AsyncClient, _Async)):
            original = client._transport_for_url
            patched = self._patched(original, between)
            client._transport_for_url = patched
            self._originals.append((client, original, patched))

    def remove(self) -> None:
        """Take the hook out; where somebody has put another one over it since, it stays and does nothing."""
        for client, original, patched in self._originals:
            if client.__dict__.get("_transport_for_url") is patched:
                client._transport_for_url = original
        self._originals = []

    def _patched(self, original: Any, between: type["_Between"]) -> Any:
        @functools.wraps(original)
        def _transport_for_url(client: Any, url: Any) -> Any:
            transport = original(client, url)
            recorder = self._recorder()
            return transport if recorder is None else between(transport, self, recorder)

        return _transport_for_url

    def open(self, recorder: Recorder, request: Any) -> Exchange | None:
        """Begin to watch the request, if it goes to an LLM and nobody watches it yet."""
        if inside.get():
            return None
        # Not shielded() but written out, here and in watch(): for every request of the app.
        try:
            url = request.url
            method, path = request.method, url.raw_path.decode("ascii", "replace")
            if not may_be_call(method, path):
                return None
            try:
                body = request.content
            except self._not_read:
                body = _fields(request.stream)
            seen = Request(
                method,
                url.host,
                url.port,
                path,
                raw_headers(request.headers.raw),
                body,
                80 if url.scheme == "http" else 443,
            )
            return open_exchange(recorder, seen, http_span=httpspans.wanted(recorder.settings, self._name))
        except Exception as exc:  # noqa: BLE001  # caught() is the place
            caught("looking at a request", exc)
            return None

    def watch(self, exchange: Exchange, response: Any, body: type[PassingSync] | type[PassingAsync]) -> None:
        """Let the response's body pass by the exchange from now on."""
        try:
            status, told = response.status_code, response.extensions
            if status < 200 or 300 <= status < 400 or told.get(_FROM_CACHE[0]) or told.get(_FROM_CACHE[1]):
                exchange.drop()
                return
            headers = raw_headers(response.headers.raw)
            if response.is_stream_consumed:
                # Read already (a test double, or a transport that reads ahead): the whole body is there, decoded.
                exchange.head(status, headers, decoded=True)
                exchange.feed(response.content)
                exchange.end(complete=True)
                return
            exchange.head(status, headers)
            if isinstance(response.stream, self._sync_base if body is self._sync_body else self._async_base):
                hide = exchange.question is not None and "content-encoding" not in headers
                response.stream = body(response.stream, exchange, usage.Without() if hide else None)
            else:
                exchange.end(complete=False)
        except Exception as exc:  # noqa: BLE001  # as above
            caught("taking hold of a response", exc)

    @shielded("asking for a stream's usage")
    def asking(self, question: bytes, request: Any) -> Any:
        """A copy of the app's request with this body, which asks for the stream's usage as well."""
        return usage.asking(self._module, request, question)

    def spans(
        self, exchange: Exchange, transport: Any, request: Any, *, asynchronous: bool
    ) -> tuple[Any, AbstractContextManager[object]]:
        """The transport to use and the context to send in, for an HTTP span under the call's."""
        found = self._with_span(exchange, transport, asynchronous, request)
        return found if found is not None else (transport, nullcontext())

    @shielded("making an HTTP span")
    def _with_span(
        self, exchange: Exchange, transport: Any, asynchronous: bool, request: Any
    ) -> tuple[Any, AbstractContextManager[object]]:
        return httpspans.under(
            exchange.begun,
            transport,
            self._name,
            exchange.tracer_provider,
            asynchronous=asynchronous,
            headers=None if exchange.settings.http_spans else request.headers,
        )


class _Between:
    """Stands in for a transport while one request is sent through it."""

    __slots__ = ("_hook", "_recorder", "_transport")

    def __init__(self, transport: Any, hook: Hook, recorder: Recorder) -> None:
        self._transport = transport
        self._hook = hook
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Sync(_Between):
    __slots__ = ()

    def handle_request(self, request: Any) -> Any:
        hook, transport = self._hook, self._transport
        exchange = hook.open(self._recorder, request)
        if exchange is None:
            return transport.handle_request(request)
        if exchange.question is not None:
            request = hook.asking(exchange.question, request) or request
        token = inside.set(True)
        try:
            if exchange.http_span:
                response = self._under_span(exchange, request)
            else:
                response = transport.handle_request(request)
        except BaseException as exc:
            exchange.end(complete=False, error=exc)
            raise
        finally:
            inside.reset(token)
        hook.watch(exchange, response, hook._sync_body)
        return response

    def _under_span(self, exchange: Exchange, request: Any) -> Any:
        transport, under_call = self._hook.spans(exchange, self._transport, request, asynchronous=False)
        with under_call:
            return transport.handle_request(request)


class _Async(_Between):
    __slots__ = ()

    async def handle_async_request(self, request: Any) -> Any:
        hook, transport = self._hook, self._transport
        exchange = hook.open(self._recorder, request)
        if exchange is None:
            return await transport.handle_async_request(request)
        if exchange.question is not None:
            request = hook.asking(exchange.question, request) or request
        token = inside.set(True)
        try:
            if exchange.http_span:
                response = await self._under_span(exchange, request)
            else:
                response = await transport.handle_async_request(request)
        except BaseException as exc:
            exchange.end(complete=False, error=exc)
            raise
        finally:
            inside.reset(token)
        hook.watch(exchange, response, hook._async_body)
        return response

    async def _under_span(self, exchange: Exchange, request: Any) -> Any:
        transport, under_call = self._hook.spans(exchange, self._transport, request, asynchronous=True)
        with under_call:
            return await transport.handle_async_request(request)
