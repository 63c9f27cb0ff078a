"""The hook for urllib3, and so for requests and botocore (boto3), which send by it.

It stands where a pool sends one request over one of its connections, below retries, redirects, sessions and adapters:
each attempt that reaches the wire is a request of its own. The body is read along under the response, where it comes
over the wire, so whatever a response is read with (stream(), iter_content(), an AWS event stream, a drain before a
retry) is the same. A requests adapter that doesn't use urllib3 is not seen. Never here: what a body means.
"""

import functools
import http.client
from collections.abc import Callable
from typing import Any

from spendwatch.hooks import httpspans, replyfile, seen, usage
from spendwatch.hooks.exchange import Exchange, inside, open_exchange
from spendwatch.hooks.guard import shielded
from spendwatch.recorder import Recorder
from spendwatch.wire import may_be_call


class Hook:
    """The hook in urllib3, versions 1.26 and 2."""

    def __init__(self, module: Any, recorder: Callable[[], Recorder | None]) -> None:
        self._pool = module.connectionpool.HTTPConnectionPool
        self._recorder = recorder
        self._original: Any = None
        self._patched: Any = None

    def install(self) -> None:
        """Put the hook in. Raises AttributeError when the module is of a version that has no place for it."""
        self._original = self._pool._make_request
        self._patched = self._patch(self._original)
        self._pool._make_request = self._patched

    def remove(self) -> None:
        """Take the hook out; where somebody has put another one over it since, it stays and does nothing."""
        if self._pool.__dict__.get("_make_request") is self._patched:
            self._pool._make_request = self._original

    def _patch(self, original: Any) -> Any:
        @functools.wraps(original)
        def _make_request(pool: Any, conn: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
            recorder = self._recorder()
            exchange = self._open(recorder, pool, method, url, args, options) if recorder is not None else None
            if exchange is None:
                return original(pool, conn, method, url, *args, **options)
            http, added = exchange.http or (None, {})
            if exchange.question is not None or added:
                args, options = self._changed(exchange.question, added, args, options) or (args, options)
            token = inside.set(True)
            try:
                response = original(pool, conn, method, url, *args, **options)
            except BaseException as exc:
                if http is not None:
                    http.failed(exc)
                exchange.end(complete=False, error=exc)
                raise
            finally:
                inside.reset(token)
            if http is not None:
                http.answered(response.status)
            self._watch(exchange, response)
            return response

        return _make_request

    @shielded("looking at a request")
    def _open(
        self, recorder: Recorder, pool: Any, method: str, url: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Exchange | None:
        if not may_be_call(method.upper(), url) or inside.get():
            return None
        # 2.x names both in its signature; 1.26 hands them on by name.
        body = options.get("body", args[0] if args else None)
        headers = options.get("headers", args[1] if len(args) > 1 else None)
        request = seen.request(method, url, pool.host or "", pool.port, headers, body)
        wanted = httpspans.wanted(recorder.settings, "urllib3")
        exchange = open_exchange(recorder, request, http_span=wanted)
        if exchange is not None:
            exchange.begin_http(request, secure=pool.scheme == "https")
        return exchange

    @shielded("adding to a request")
    def _changed(
        self, body: bytes | None, added: dict[str, str], args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a request with another body and further headers; the app's own stay as they are."""
        given = options.get("headers", args[1] if len(args) > 1 else None)
        headers = usage.asking_headers(given, body) if body is not None else given.copy() if given is not None else {}
        headers.update(added)
        if body is not None and "chunked" in options:
            options = {**options, "chunked": False}
        if not args:
            return args, {**options, "headers": headers, **({} if body is None else {"body": body})}
        options = {name: value for name, value in options.items() if name != "headers"}
        return (args[0] if body is None else body, headers, *args[2:]), options

    @shielded("taking hold of a response")
    def _watch(self, exchange: Exchange, response: Any) -> None:
        status = response.status
        if status < 200 or 300 <= status < 400:
            exchange.drop()
            return
        # 1.26 gives http.client's response, 2.x one of its own around that.
        raw = response if isinstance(response, http.client.HTTPResponse) else response._original_response
        body = getattr(response, "_body", None)
        if body is not None or raw is None:
            # Read ahead (preload_content, HTTP/2): the whole body is there, decoded if urllib3 could.
            decoded = getattr(response, "_decoder", None) is not None and response.decode_content
            exchange.head(status, seen.headers(response.headers.items()), decoded=decoded)
            whole = body if body is not None else response.data
            exchange.feed(whole)
            exchange.end(complete=True)
            if exchange.question is not None and isinstance(body, bytes) and "content-encoding" not in response.headers:
                response._body = usage.without(whole)
            return
        exchange.head(status, seen.headers(response.headers.items()))
        replyfile.watch(raw, exchange)
