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
from spendwatch.hooks.guard import shielded
from spendwatch.hooks.seen import Headers, form
from spendwatch.hooks.stream import PassingAsync, PassingSync, bodies
from spendwatch.recorder import Recorder
from spendwatch.wire import Request

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
        self._sync_body, self._async_body = bodies(module)
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

    @shielded("looking at a request")
    def open(self, recorder: Recorder, request: Any) -> Exchange | None:
        """Begin to watch the request, if it goes to an LLM and nobody watches it yet."""
        if inside.get():
            return None
        url = request.url
        try:
            body = request.content
        except self._not_read:
            body = _fields(request.stream)
        seen = Request(
            method=request.method,
            host=url.host,
            port=url.port,
            path=url.raw_path.decode("ascii", "replace"),
            headers=Headers(request.headers.raw),
            body=body,
            default_port=80 if url.scheme == "http" else 443,
        )
        return open_exchange(recorder, seen, http_span=httpspans.wanted(recorder.settings, self._module.__name__))

    @shielded("taking hold of a response")
    def watch(self, exchange: Exchange, response: Any, body: type[PassingSync] | type[PassingAsync]) -> None:
        """Let the response's body pass by the exchange from now on."""
        status = response.status_code
        if status < 200 or 300 <= status < 400 or any(response.extensions.get(name) for name in _FROM_CACHE):
            exchange.drop()
            return
        if response.is_stream_consumed:
            # Read already (a test double, or a transport that reads ahead): the whole body is there, decoded.
            exchange.head(status, Headers(response.headers.raw), decoded=True)
            exchange.feed(response.content)
            exchange.end(complete=True)
            return
        exchange.head(status, Headers(response.headers.raw))
        base = self._module.SyncByteStream if body is self._sync_body else self._module.AsyncByteStream
        if isinstance(response.stream, base):
            hide = exchange.question is not None and "content-encoding" not in response.headers
            response.stream = body(response.stream, exchange, usage.Without() if hide else None)
        else:
            exchange.end(complete=False)

    def asking(self, exchange: Exchange, request: Any) -> Any:
        """The request to send: the app's, or a copy that asks for the stream's usage as well."""
        return (self._asking(exchange.question, request) if exchange.question is not None else None) or request

    @shielded("asking for a stream's usage")
    def _asking(self, body: bytes, request: Any) -> Any:
        return usage.asking(self._module, request, body)

    def spans(
        self, exchange: Exchange, transport: Any, request: Any, *, asynchronous: bool
    ) -> tuple[Any, AbstractContextManager[object]]:
        """The transport to use and the context to send in: with an HTTP span under the call's, if that is wanted."""
        if not exchange.http_span:
            return transport, nullcontext()
        found = self._with_span(exchange, transport, asynchronous, request)
        return found if found is not None else (transport, nullcontext())

    @shielded("making an HTTP span")
    def _with_span(
        self, exchange: Exchange, transport: Any, asynchronous: bool, request: Any
    ) -> tuple[Any, AbstractContextManager[object]]:
        return httpspans.under(
            exchange.begun,
            transport,
            self._module.__name__,
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
        request = hook.asking(exchange, request)
        transport, under_call = hook.spans(exchange, transport, request, asynchronous=False)
        token = inside.set(True)
        try:
            with under_call:
                response = transport.handle_request(request)
        except BaseException as exc:
            exchange.end(complete=False, error=exc)
            raise
        finally:
            inside.reset(token)
        hook.watch(exchange, response, hook._sync_body)
        return response


class _Async(_Between):
    __slots__ = ()

    async def handle_async_request(self, request: Any) -> Any:
        hook, transport = self._hook, self._transport
        exchange = hook.open(self._recorder, request)
        if exchange is None:
            return await transport.handle_async_request(request)
        request = hook.asking(exchange, request)
        transport, under_call = hook.spans(exchange, transport, request, asynchronous=True)
        token = inside.set(True)
        try:
            with under_call:
                response = await transport.handle_async_request(request)
        except BaseException as exc:
            exchange.end(complete=False, error=exc)
            raise
        finally:
            inside.reset(token)
        hook.watch(exchange, response, hook._async_body)
        return response
