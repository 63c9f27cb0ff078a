"""A request's body: read within a size and a time, and decompressed piece by piece within a size.

Decompression stops at the limit, so a bomb is refused after the 64 MiB that it may cost, not after the gigabytes that
it promises. Never here: what the bytes mean.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

ENCODINGS = ("", "identity", "gzip", "deflate")

_MAX_MEMBERS = 16
"""Gzip files in one body. Each copies the rest of it, so that thousands of empty ones would take minutes."""


class BodyTooLargeError(Exception):
    """More bytes than allowed, as sent or after decompression."""


class BodyTooSlowError(Exception):
    """The body did not arrive in time."""


class BodyBrokenError(Exception):
    """The body is not what its content-encoding says."""


class DisconnectedError(Exception):
    """The sender left; there is nobody to answer."""


async def receive_body(receive: Receive, *, limit: int, timeout_s: float, hold: Callable[[int], None]) -> bytes:
    """The whole body as sent. `hold` is told of each piece before it is kept, and may refuse by raising."""
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DisconnectedError
                piece = message.get("body", b"")
                size += len(piece)
                if size > limit:
                    raise BodyTooLargeError
                if piece:
                    hold(len(piece))
                    pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise BodyTooSlowError from None


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body without its content-encoding (one of ENCODINGS). Raises BodyTooLargeError, BodyBrokenError."""
    if encoding in ("", "identity"):
        return body
    # RFC 9110's deflate is zlib, but bare deflate is sent under that name too; the first byte of zlib tells.
    bare = encoding == "deflate" and (not body or body[0] & 0x0F != 8)
    window = 31 if encoding == "gzip" else -15 if bare else 15
    pieces: list[bytes] = []
    left = limit
    rest = body
    try:
        for _ in range(_MAX_MEMBERS):
            stream = zlib.decompressobj(wbits=window)
            piece = stream.decompress(rest, left + 1)
            if len(piece) > left:
                raise BodyTooLargeError
            left -= len(piece)
            pieces.append(piece)
            if not stream.eof:
                raise BodyBrokenError("it ends in the middle")
            rest = stream.unused_data
            # A gzip file may be several, one after the other; zero bytes are padding.
            if encoding != "gzip" or not rest.strip(b"\0"):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        raise BodyBrokenError(f"it is more than {_MAX_MEMBERS} gzip files in a row")
    except zlib.error as error:
        raise BodyBrokenError(str(error)) from None
