"""An HTTP span under a call's span, made by opentelemetry-instrumentation-httpx, for calls only.

That package's transport is laid around the one in use, so that no other request of the app gets a span it didn't ask
for. Where the app has that instrumentation on already, its own span simply becomes a child of the call's. Costs 200
to 300 µs a call, hence only when wanted. Never here: the call's own span.
"""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

from opentelemetry import context, trace

from spendwatch.config import Settings
from spendwatch.errors import ConfigError
from spendwatch.recorder import Begun

PACKAGE = "opentelemetry-instrumentation-httpx"
_MODULE = "opentelemetry.instrumentation.httpx"
_ADDRESSES = ("http.url", "url.full", "url.query", "http.target")
_KEY = re.compile(r"((?:^|[?&])(?:api[-_]?)?key=)[^&#]*", re.IGNORECASE)


def wanted(settings: Settings, module: str) -> bool:
    """Whether calls get an HTTP span: as set; unset, when the app has a TracerProvider of its own and the package."""
    if settings.http_spans is not None:
        return settings.http_spans
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) and installed(module)


@lru_cache(maxsize=4)
def installed(module: str) -> bool:
    """Whether the instrumentation for this client module can be imported."""
    try:
        if importlib.util.find_spec(_MODULE) is None:
            return False
        return _classes(module) is not None
    except ImportError:
        return False


def check(settings: Settings) -> None:
    """Raise ConfigError when http_spans was asked for and the package is missing."""
    try:
        missing = settings.http_spans is True and importlib.util.find_spec(_MODULE) is None
    except ImportError:
        missing = settings.http_spans is True
    if missing:
        raise ConfigError(f"http_spans=True needs {PACKAGE}, which is not installed. Install it, or leave it out.")


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
    begun: Begun, transport: Any, module: str, provider: trace.TracerProvider | None, *, asynchronous: bool
) -> tuple[Any, AbstractContextManager[object]]:
    """The transport that makes the HTTP span, and the context in which the call's span is its parent.

    provider: the app's TracerProvider, None for the global one.
    """
    classes = _classes(module)
    if classes is not None and not classes[0]().is_instrumented_by_opentelemetry:
        hook = _hide_keys_async if asynchronous else _hide_keys
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


@contextmanager
def _current(begun: Begun) -> Iterator[None]:
    span = begun.app_span if begun.app_span is not None else trace.NonRecordingSpan(begun.span_context())
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)
