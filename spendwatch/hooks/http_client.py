"""The hook for http.client: for urllib.request, and whatever else sends by the standard library's connections.

It sees what is sent by HTTPConnection.request() and received by getresponse(); a request put together by hand
(putrequest(), endheaders()) is not seen. urllib3's connections have a hook of their own above; they pass here unseen.
Never here: what a body means.
"""

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from spendwatch.hooks import httpspans, replyfile, seen, usage
from spendwatch.hooks.exchange import Exchange, Sent, inside, open_exchange
from spendwatch.hooks.guard import shielded
from spendwatch.recorder import Recorder
from spendwatch.wire import may_be_call


class Hook:
    """The hook in http.client."""

    def __init__(self, module: Any, recorder: Callable[[], Recorder | None]) -> None:
        self._connection = module.HTTPConnection
        self._recorder = recorder
        self._sent: WeakKeyDictionary[Any, Sent] = WeakKeyDictionary()
        self._originals: list[tuple[str, Any, Any]] = []

    def install(self) -> None:
        """Put the hook in."""
        for name, patch in (("request", self._request), ("getresponse", self._getresponse)):
            original = getattr(self._connection, name)
            patched = patch(original)
            setattr(self._connection, name, patched)
            self._originals.append((name, original, patched))

    def remove(self) -> None:
        """Take the hook out; where somebody has put another one over it since, it stays and does nothing."""
        for name, original, patched in self._originals:
            if self._connection.__dict__.get(name) is patched:
                setattr(self._connection, name, original)
        self._originals = []

    def _request(self, original: Any) -> Any:
        @functools.wraps(original)
        def request(conn: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
            recorder = self._recorder()
            exchange = self._open(recorder, conn, method, url, args, options) if recorder is not None else None
            if exchange is None:
                return original(conn, method, url, *args, **options)
            http, added = exchange.http or (None, {})
            if exchange.question is not None or added:
                args, options = self._changed(exchange.question, added, args, options) or (args, options)
            token = inside.set(True)
            try:
                result = original(conn, method, url, *args, **options)
            except BaseException as exc:
                if http is not None:
                    http.failed(exc)
                exchange.end(complete=False, error=exc)
                raise
            finally:
                inside.reset(token)
            self._sent[conn] = Sent(exchange)
            return result

        return request

    def _getresponse(self, original: Any) -> Any:
        @functools.wraps(original)
        def getresponse(conn: Any, *args: Any, **options: Any) -> Any:
            sent = self._sent.pop(conn, None) if self._sent else None
            if sent is None:
                return original(conn, *args, **options)
            exchange = sent.answered()
            http, _ = exchange.http or (None, {})
            try:
                response = original(conn, *args, **options)
            except BaseException as exc:
                if http is not None:
                    http.failed(exc)
                exchange.end(complete=False, error=exc)
                raise
            if http is not None:
                http.answered(response.status)
            self._watch(exchange, response)
            return response

        return getresponse

    @shielded("looking at a request")
    def _open(
        self, recorder: Recorder, conn: Any, method: str, url: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Exchange | None:
        if not may_be_call(method.upper(), url) or inside.get():
            return None
        body = options.get("body", args[0] if args else None)
        headers = options.get("headers", args[1] if len(args) > 1 else None)
        # Through a tunnel the connection itself goes to the proxy.
        tunnel = conn._tunnel_host
        host, port = (tunnel, conn._tunnel_port) if tunnel else (conn.host, conn.port)
        request = seen.request(method, url, host, port, headers, body)
        exchange = open_exchange(recorder, request, http_span=httpspans.wanted(recorder.settings, "http.client"))
        if exchange is not None:
            exchange.begin_http(request, secure=bool(tunnel) or hasattr(conn, "_context"))
        return exchange

    @shielded("adding to a request")
    def _changed(
        self, body: bytes | None, added: dict[str, str], args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a request with another body and further headers; the app's own stay as they are."""
        own = options.get("body", args[0] if args else None)
        given = options.get("headers", args[1] if len(args) > 1 else {})
        headers = usage.asking_headers(given, body) if body is not None else given.copy()
        headers.update(added)
        return (), {**options, "body": own if body is None else body, "headers": headers}

    @shielded("taking hold of a response")
    def _watch(self, exchange: Exchange, response: Any) -> None:
        if response.status < 200 or 300 <= response.status < 400:
            exchange.drop()
            return
        exchange.head(response.status, seen.headers(response.headers.items()))
        replyfile.watch(response, exchange)
