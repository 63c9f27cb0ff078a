"""The body of one HTTP request, read from ASGI piece by piece, unpacked on the way and bounded in time.

It also knows when the client has left, which is how a statement nobody waits for any more is stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from typing import Any

from spendwatch.clickhouse.store.compression import Unpacking
from spendwatch.clickhouse.store.errors import BAD_ARGUMENTS, QUERY_IS_TOO_LARGE, SOCKET_TIMEOUT, refusal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):  # noqa: N818  # nobody is there to be told of an error
    """The client closed the connection."""


class Body:
    """The request's body. idle_timeout_s: how long the client may send nothing before it is given up."""

    def __init__(self, receive: Receive, *, idle_timeout_s: float) -> None:
        self._receive = receive
        self._idle_timeout_s = idle_timeout_s
        self._unpacker: Unpacking | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._ended = False

    def unpack_with(self, unpacker: Unpacking) -> None:
        """From here on the bytes are compressed like this."""
        self._unpacker = unpacker

    async def _raw(self) -> bytes | None:
        """The next bytes from the network; None at the end. Raises ClientLeft, and Refusal when none come."""
        if self._ended:
            return None
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                message = await self._receive()
        except TimeoutError:
            self._ended = True
            raise refusal(
                SOCKET_TIMEOUT, f"Timeout exceeded: the client sent nothing for {self._idle_timeout_s:g} s."
            ) from None
        if message["type"] == "http.disconnect":
            self._ended = True
            raise ClientLeft
        if not message.get("more_body", False):
            self._ended = True
        data: bytes = message.get("body", b"")
        return data

    async def read(self) -> bytes | None:
        """Some bytes of the unpacked body; None at its end."""
        while True:
            for piece in self._pieces:
                return piece
            data = await self._raw()
            if data is None:
                if self._unpacker is not None:
                    self._unpacker.finish()
                return None
            if self._unpacker is None:
                if data:
                    return data
            else:
                self._pieces = self._unpacker.unpack(data)

    async def read_at_least(self, count: int) -> tuple[bytes, bool]:
        """At least count bytes, or all that are left; and whether that was the end."""
        parts: list[bytes] = []
        size = 0
        while size < count:
            piece = await self.read()
            if piece is None:
                return b"".join(parts), True
            parts.append(piece)
            size += len(piece)
        return b"".join(parts), False

    async def read_all(self, limit: int) -> bytes:
        """All that is left. Raises Refusal when it is more than limit bytes."""
        data, ended = await self.read_at_least(limit + 1)
        if not ended:
            raise refusal(
                QUERY_IS_TOO_LARGE,
                f"The statement is larger than {limit} bytes. Send data with INSERT … FORMAT, which has no such limit.",
            )
        return data

    async def drain(self, limit: int) -> None:
        """Read what the client still sends and forget it, so that it gets to read the answer; not for ever."""
        while limit > 0:
            data = await self._raw()
            if data is None:
                return
            limit -= len(data)

    async def left(self) -> None:
        """Return when the client closes the connection. To be awaited after the whole body was read."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart/form-data body: plain fields, and files (external tables)."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def read_form(content_type: str, body: bytes) -> Form:
    """Read a multipart/form-data body (RFC 7578). Raises Refusal when it is not one."""
    head = Message()
    head["Content-Type"] = content_type
    boundary = head.get_boundary()
    if not boundary:
        raise refusal(BAD_ARGUMENTS, "The multipart body names no boundary.")
    form = Form()
    mark = b"--" + boundary.encode()
    parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise refusal(BAD_ARGUMENTS, "The multipart body is cut or has another boundary than it says.")
    for part in parts[1:-1]:
        headers, separator, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        described = HeaderParser().parsestr(headers.decode("utf-8", "replace"))
        name = described.get_param("name", header="content-disposition")
        if not separator or not isinstance(name, str):
            raise refusal(BAD_ARGUMENTS, "A part of the multipart body has no name.")
        if described.get_filename() is not None:
            form.files[name] = content
        else:
            form.fields[name] = content.decode("utf-8", "replace")
    return form
