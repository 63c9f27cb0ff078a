"""An HTTP span under a call's span, for calls only.

For httpx and httpx2 opentelemetry-instrumentation-httpx makes it: its transport is laid around the one in use, so that
no other request of the app gets a span it didn't ask for; where the app has that instrumentation on already, its span
simply becomes a child of the call's. For urllib3, aiohttp and http.client the instrumentations of others sit above the
hook: where one is at work its span is the call's parent and is enough, where none is, the span is made here. It ends
when the reply's head is there. The trace's header goes to a provider only with http_spans=True, which asks for what
those instrumentations do. Costs 100 to 300 µs a call, hence only when wanted. Never here: the call's own span.
"""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Status, StatusCode

from spendwatch.config import Settings
from spendwatch.errors import ConfigError
from spendwatch.hooks.guard import shielded
from spendwatch.recorder import Begun
from spendwatch.wire import Request

PACKAGE = "opentelemetry-instrumentation-httpx"
_MODULE = "opentelemetry.instrumentation.httpx"
_ADDRESSES = ("http.url", "url.full", "url.query", "http.target")
_PACKAGES = {
    "urllib3": ("opentelemetry.instrumentation.urllib3", "opentelemetry.instrumentation.requests"),
    "aiohttp": ("opentelemetry.instrumentation.aiohttp_client",),
    "http.client": ("opentelemetry.instrumentation.urllib",),
}
_HTTP_SCOPES = frozenset(name for names in _PACKAGES.values() for name in names) | {_MODULE}
_KEY = re.compile(r"((?:^|[?&])(?:api[-_]?)?key=)[^&#]*", re.IGNORECASE)


def wanted(settings: Settings, module: str) -> bool:
    """Whether calls get an HTTP span: as set; unset, when the app has a TracerProvider of its own and the package."""
    chosen = settings.http_spans
    if chosen is False or (module in _PACKAGES and _within_one()):
        return False
    if chosen is not None:
        return chosen
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) and installed(module)


def _within_one() -> bool:
    """Whether an HTTP instrumentation above has made a span of this request."""
    if context.get_value("suppress_http_instrumentation"):
        return True
    scope = getattr(trace.get_current_span(), "instrumentation_scope", None)
    return scope is not None and scope.name in _HTTP_SCOPES


@lru_cache(maxsize=8)
def installed(module: str) -> bool:
    """Whether the instrumentation for this client module can be imported."""
    try:
        if module in _PACKAGES:
            return any(importlib.util.find_spec(name) is not None for name in _PACKAGES[module])
        if importlib.util.find_spec(_MODULE) is None:
            return False
        return _classes(module) is not None
    except ImportError:
        return False


def check(settings: Settings) -> None:
    """Raise ConfigError when http_spans was asked for and the package is missing that httpx needs for it."""
    if not {"httpx", "httpx2"} & set(settings.clients):
        return
    try:
        missing = settings.http_spans is True and importlib.util.find_spec(_MODULE) is None
    except ImportError:
        missing = settings.http_spans is True
    if missing:
        raise ConfigError(
            f"http_spans=True needs {PACKAGE} for httpx, which is not installed. Install it, leave http_spans out, or "
            "leave httpx and httpx2 out of clients."
        )


@lru_cache(maxsize=4)
def _classes(module: str) -> tuple[Any, Any, Any] | None:
    """The instrumentor and the sync and async transports of the package for this client module."""
    package = importlib.import_module(_MODULE)
    suffix, instrumentor = {"httpx": ("", "HTTPXClientInstrumentor"), "httpx2": ("Httpx2", "HTTPX2ClientInstrumentor")}[
        module
    ]
    found = [
        getattr(package, name, None)
        for name in (instrumentor, f"SyncOpenTelemetryTransport{suffix}", f"AsyncOpenTelemetryTransport{suffix}")
    ]
    return None if None in found else (found[0], found[1], found[2])


def under(
    begun: Begun,
    transport: Any,
    module: str,
    provider: trace.TracerProvider | None,
    *,
    asynchronous: bool,
    headers: Any = None,
) -> tuple[Any, AbstractContextManager[object]]:
    """The transport that makes the HTTP span, and the context in which the call's span is its parent.

    provider: the app's TracerProvider, None for the global one. headers: the request's, when none may be added.
    """
    classes = _classes(module)
    if classes is not None and not classes[0]().is_instrumented_by_opentelemetry:
        hook = _hide_keys_async if asynchronous else _hide_keys
        if headers is not None:
            transport = (_UnmarkedAsync if asynchronous else _Unmarked)(transport, headers)
        transport = classes[2 if asynchronous else 1](transport, tracer_provider=provider, request_hook=hook)
    return transport, _current(begun)


def _hide_keys(span: trace.Span, request: Any) -> None:  # noqa: ARG001  # as that package calls it
    """Take a key in the address (Gemini's `?key=`) off the span, where that package puts the whole address."""
    for name in _ADDRESSES:
        value = (getattr(span, "attributes", None) or {}).get(name)
        if isinstance(value, str) and "key=" in value:
            span.set_attribute(name, _KEY.sub(r"\1REDACTED", value))


async def _hide_keys_async(span: trace.Span, request: Any) -> None:
    _hide_keys(span, request)


class _Unmarked:
    """Stands in for a transport: what the span's maker added to the request's headers is taken off again."""

    def __init__(self, transport: Any, headers: Any) -> None:
        self._transport = transport
        self._had = {name.lower() for name in headers}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _clean(self, request: Any) -> Any:
        for name in [name for name in request.headers if name.lower() not in self._had]:
            del request.headers[name]
        return request

    def handle_request(self, request: Any) -> Any:
        return self._transport.handle_request(self._clean(request))


class _UnmarkedAsync(_Unmarked):
    async def handle_async_request(self, request: Any) -> Any:
        return await self._transport.handle_async_request(self._clean(request))


class HttpSpan:
    """The span of one request, by the conventions for HTTP clients."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span: trace.Span | None = span

    def __del__(self) -> None:
        self._end()

    def answered(self, status: int) -> None:
        """The reply's head is there."""
        if self._span is not None:
            self._span.set_attribute("http.response.status_code", status)
            if status >= 400:
                self._span.set_attribute("error.type", str(status))
                self._span.set_status(Status(StatusCode.ERROR))
        self._end()

    def failed(self, exc: BaseException) -> None:
        """There will be no reply."""
        if self._span is not None:
            self._span.set_attribute("error.type", type(exc).__qualname__)
            self._span.set_status(Status(StatusCode.ERROR))
        self._end()

    def _end(self) -> None:
        span, self._span = self._span, None
        if span is not None:
            span.end()


@shielded("making an HTTP span")
def begin(
    begun: Begun, provider: trace.TracerProvider | None, request: Request, settings: Settings, *, secure: bool
) -> tuple[HttpSpan, dict[str, str]]:
    """Begin the span of a request under its call's. Returns it and the headers to add to the request, mostly none."""
    port = request.port or request.default_port
    shown = "" if request.port is None else f":{request.port}"
    scheme = "https" if secure else "http"
    where = trace.set_span_in_context(_call_span(begun))
    span = (
        (provider or trace.get_tracer_provider())
        .get_tracer("spendwatch.hooks")
        .start_span(
            request.method,
            context=where,
            kind=trace.SpanKind.CLIENT,
            attributes={
                "http.request.method": request.method,
                "server.address": request.host,
                "server.port": port,
                "url.full": _KEY.sub(r"\1REDACTED", f"{scheme}://{request.host}{shown}{request.path}"),
            },
        )
    )
    headers: dict[str, str] = {}
    if settings.http_spans:
        propagate.inject(headers, trace.set_span_in_context(span, where))
    return HttpSpan(span), headers


def _call_span(begun: Begun) -> trace.Span:
    return begun.app_span if begun.app_span is not None else trace.NonRecordingSpan(begun.span_context())


@contextmanager
def _current(begun: Begun) -> Iterator[None]:
    token = context.attach(trace.set_span_in_context(_call_span(begun)))
    try:
        yield
    finally:
        context.detach(token)
