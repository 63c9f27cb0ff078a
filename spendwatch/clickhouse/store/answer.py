"""The answer to one request: status, ClickHouse's headers, and a body in one piece or many.

Once a body has begun its status can't be taken back: a failure after that is written into the body as ClickHouse does
(the `__exception__` block) and the body ends without its end, so that no client takes it for whole.
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spendwatch.clickhouse.store.body import ClientLeft
from spendwatch.clickhouse.store.compression import Packer, chosen, packer
from spendwatch.clickhouse.store.errors import Refusal
from spendwatch.clickhouse.store.run import Progress

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PLAIN = b"text/plain; charset=UTF-8"
_CONTENT_TYPES = {
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedwithnames": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedwithnamesandtypes": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
}


class Answer:
    """Writes one answer. client_idle_s: how long the client may take nothing of it before it is given up."""

    def __init__(self, send: Send, version: str, *, client_idle_s: float) -> None:
        self._send = send
        self._version = version
        self._client_idle_s = client_idle_s
        self._tag = secrets.token_hex(8)
        self.query_id = str(uuid.uuid4())
        self.format = "TabSeparated"
        self.begun = False

    async def plain(self, status: int, body: bytes) -> None:
        """A text that has nothing to do with a statement."""
        await self._start(status, [(b"content-type", _PLAIN), (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def whole(self, body: bytes, progress: Progress, accept_encoding: str) -> None:
        """The result of a statement in one piece."""
        encoding = chosen(accept_encoding) if body else None
        if encoding is not None:
            pack = packer(encoding)
            body = pack.pack(body) + pack.finish()
        headers = self._headers(progress, encoding)
        await self._start(200, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, progress: Progress, encoding: str | None) -> None:
        """The head of a result in many pieces, which follow by more() and end()."""
        await self._start(200, self._headers(progress, encoding))

    async def more(self, data: bytes) -> None:
        """One piece. Raises ClientLeft when the client takes nothing any more."""
        try:
            async with asyncio.timeout(self._client_idle_s):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise ClientLeft from None

    async def end(self, data: bytes) -> None:
        """The last piece."""
        await self._send({"type": "http.response.body", "body": data})

    async def break_off(self, error: Refusal, pack: Packer) -> None:
        """Fail after begin(): the message goes into the body, which then stays without an end."""
        text, tag = self._worded(error).encode(), self._tag.encode()
        block = b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (tag, text, len(text) + 1, tag)
        await self.more(pack.pack(block) + pack.finish())

    async def refuse(self, error: Refusal) -> None:
        """A refusal with its code and status; nothing when a body has already begun."""
        if self.begun:
            return
        body = self._worded(error).encode() + b"\n"
        headers = [(name, value) for name, value in self._headers(None, None) if name != b"content-type"]
        headers += [
            (b"content-type", _PLAIN),
            (b"content-length", str(len(body)).encode()),
            (b"x-clickhouse-exception-code", str(error.code).encode()),
        ]
        if error.status == 401:
            headers.append((b"www-authenticate", b'Basic realm="ClickHouse server HTTP API"'))
        await self._start(error.status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _worded(self, error: Refusal) -> str:
        return error.text if "(version " in error.text else f"{error.text} (version {self._version})"

    def _headers(self, progress: Progress | None, encoding: str | None) -> list[tuple[bytes, bytes]]:
        headers = {
            "content-type": _CONTENT_TYPES.get(self.format.lower(), "application/octet-stream"),
            "x-clickhouse-server-display-name": "spendwatch-store",
            "x-clickhouse-query-id": self.query_id,
            "x-clickhouse-format": self.format,
            "x-clickhouse-timezone": "UTC",
            "x-clickhouse-exception-tag": self._tag,
        }
        if progress is not None:
            headers["x-clickhouse-summary"] = json.dumps(progress.summary(), separators=(",", ":"))
        if encoding is not None:
            headers["content-encoding"] = encoding
        return [(name.encode(), _header_value(value)) for name, value in headers.items()]


def _header_value(value: str) -> bytes:
    """A value that a client chose (its query id) may not write headers of its own."""
    return "".join(character if character.isprintable() else "?" for character in value).encode("latin-1", "replace")
