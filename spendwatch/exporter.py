"""OTLP over HTTP: one POST of spans, and what the answer means for them.

On the standard library's http.client, which no instrumentation traces, so that reporting a call never makes another.
Never here: deciding when to send, keeping what was not taken (the shipper does both).
"""

import base64
import gzip
import http.client
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import unquote, urlsplit

from spendwatch import otlp
from spendwatch.config import Settings

MAX_RETRY_AFTER_S = 600.0
_MAX_ANSWER = 64 * 1024


class Verdict(Enum):
    """What to do with the spans of a request that has been tried."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    """Not now: try again, later and later."""
    REFUSED = "refused"
    """The receiver doesn't want us (token, address): keep everything, try rarely, say so."""
    SMALLER = "smaller"
    """Not as it is: too large or one of them unreadable. Halve it; a single one is given up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt. `text` says why, for the log; rejected: spans that a receiver left out."""

    verdict: Verdict
    text: str = ""
    retry_after_s: float | None = None
    rejected: int = 0


class _Lines:
    """The file under a response, which knows how its head ended."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, *args: Any) -> bytes:
        self.last = self._file.readline(*args)
        return self.last


class _Response(http.client.HTTPResponse):
    """A response whose head is whole: http.client takes the end of the connection for the end of a head."""

    def begin(self) -> None:
        file: Any = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        super().begin()
        if self.fp is not None:  # it is closed already where there is no body
            self.fp = file
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(lines.last)


class Exporter:
    """Posts OTLP bodies to one address over one kept-open connection. Used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parts = urlsplit(settings.url)
        self._target = self._target_path()
        self._connection: http.client.HTTPConnection | None = None

    @property
    def address(self) -> str:
        """Where it posts to, for messages."""
        return self._settings.url

    def post(self, body: bytes) -> Outcome:
        """Send one ExportTraceServiceRequest. Never raises for what the network or the receiver does."""
        reused = self._connection is not None
        try:
            try:
                return self._attempt(body)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A receiver may close an idle connection at any time: on a used one that says nothing about today.
                if not reused:
                    raise
                self.close()
                return self._attempt(body)
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            return Outcome(Verdict.RETRY, f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def after_fork(self) -> None:
        """In a forked child: the socket is the parent's."""
        self.close()

    def _attempt(self, body: bytes) -> Outcome:
        headers = {**self._settings.headers, "content-type": "application/x-protobuf"}
        if self._connection is None:
            self._connection = self._connect()
            self._connection.connect()
        connection = self._connection
        if self._settings.gzip:
            # Only now that somebody is there: during an outage nothing is compressed in vain.
            body = gzip.compress(body, 1)
            headers["content-encoding"] = "gzip"
        connection.request("POST", self._target, body=body, headers=headers)
        response = connection.getresponse()
        answer = self._read(response)
        if response.will_close or not response.isclosed():
            self.close()
        kind = response.getheader("content-type", "")
        return judge(response.status, response.getheader("retry-after"), answer, content_type=kind)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The answer's body. One that broke off is no answer, whatever its status; nor is one that takes for ever."""
        until = time.monotonic() + self._settings.timeout_s
        answer = b""
        while len(answer) < _MAX_ANSWER and (data := response.read1(_MAX_ANSWER)):
            answer += data
            if time.monotonic() > until:
                raise TimeoutError("the answer came too slowly")
        if len(answer) < _MAX_ANSWER:
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            response.read()  # nothing is left; the connection is free for the next request
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._connection_to()
        connection.response_class = _Response
        return connection

    def _connection_to(self) -> http.client.HTTPConnection:
        scheme, host = self._parts.scheme, self._parts.hostname or ""
        port = self._parts.port or (443 if scheme == "https" else 80)
        timeout = self._settings.timeout_s
        # Imported here because it costs 20 ms, and only the background thread needs it.
        from urllib.request import getproxies, proxy_bypass

        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        via = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else None
        credentials = {}
        if via is not None and via.username:
            pair = f"{unquote(via.username)}:{unquote(via.password or '')}"
            credentials["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if scheme == "https":
            context = ssl.create_default_context(cafile=self._settings.certificate)
            if via is None or not via.hostname:
                return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
            connection = http.client.HTTPSConnection(via.hostname, via.port or 80, timeout=timeout, context=context)
            connection.set_tunnel(host, port, headers=credentials)
            return connection
        if via is None or not via.hostname:
            self._target = self._target_path()
            return http.client.HTTPConnection(host, port, timeout=timeout)
        self._target = f"http://{self._parts.netloc}{self._target_path()}"
        return http.client.HTTPConnection(via.hostname, via.port or 80, timeout=timeout)

    def _target_path(self) -> str:
        return self._parts.path + (f"?{self._parts.query}" if self._parts.query else "")


def judge(status: int, retry_after: str | None, answer: bytes, *, content_type: str = "") -> Outcome:
    """What an HTTP answer to an export means. By the OTLP specification, but that nothing is thrown away in haste."""
    if content_type.partition(";")[0].strip().lower() == "text/html" and status < 500 and status not in (408, 413, 429):
        # A web page (a sign-in, a proxy's "plain HTTP to an HTTPS port"): whoever spoke is no receiver of spans.
        return Outcome(Verdict.REFUSED, f"HTTP {status} with a web page")
    if 200 <= status < 300:
        count, why = otlp.rejected(answer)
        return Outcome(Verdict.ACCEPTED, why, rejected=count)
    text = f"HTTP {status}"
    if status in (408, 425, 429) or status >= 500:
        return Outcome(Verdict.RETRY, text, retry_after_s=_retry_after(retry_after))
    if status in (400, 413, 422):
        return Outcome(Verdict.SMALLER, text)
    return Outcome(Verdict.REFUSED, text)


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    value = value.strip()
    if value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    from datetime import UTC, datetime

    seconds = (moment - datetime.now(UTC)).total_seconds() if moment.tzinfo else 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
