"""Content-Encoding in both directions, and the choice ClickHouse makes from Accept-Encoding.

Both directions work piece by piece: a body of any size passes in constant memory, and a small body that unpacks to a
huge one is handed on in pieces of at most PIECE bytes.
"""

import sys
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import lz4.frame  # type: ignore[import-untyped]

from spendwatch.clickhouse.store.errors import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD, refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 1 << 20
CHOICE = ("lz4", "zstd", "gzip", "deflate")


class Packer(Protocol):
    """Compresses a response piece by piece."""

    def pack(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class Unpacking(Protocol):
    """Decompresses a request body piece by piece."""

    def unpack(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> None: ...


class _Plain:
    def pack(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.compressobj(3, zlib.DEFLATED, wbits)

    def pack(self, data: bytes) -> bytes:
        return self._zlib.compress(data)

    def finish(self) -> bytes:
        return self._zlib.flush()


class _Zstd:
    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(1)

    def pack(self, data: bytes) -> bytes:
        return self._zstd.compress(data)

    def finish(self) -> bytes:
        return self._zstd.flush()


class _LZ4:
    def __init__(self) -> None:
        self._lz4 = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def pack(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._lz4.begin()
        self._begun = True
        return bytes(head + self._lz4.compress(data))

    def finish(self) -> bytes:
        head = b"" if self._begun else self._lz4.begin()
        return bytes(head + self._lz4.flush())


def packer(encoding: str | None) -> Packer:
    """A compressor for one response; None is no compression."""
    if encoding == "gzip":
        return _Zlib(31)
    if encoding == "deflate":
        return _Zlib(15)
    if encoding == "zstd":
        return _Zstd()
    if encoding == "lz4":
        return _LZ4()
    return _Plain()


def chosen(accept_encoding: str) -> str | None:
    """The encoding for a response, of those the client accepts (RFC 9110: `;q=0` is a refusal); None is plain."""
    accepted = set()
    for part in accept_encoding.lower().split(","):
        name, _, quality = part.partition(";")
        if quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            accepted.add(name.strip())
    return next((name for name in CHOICE if name in accepted), None)


class Unpacker:
    """Decompresses a request body piece by piece. Raises Refusal on an unknown method, bad data or a cut body."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._new()
        self._begun = False

    def _new(self) -> None:
        self._decompressor: Any
        if self._encoding in ("gzip", "x-gzip"):
            self._decompressor = zlib.decompressobj(31)
        elif self._encoding == "deflate":
            self._decompressor = zlib.decompressobj(15)
        elif self._encoding == "zstd":
            self._decompressor = zstd.ZstdDecompressor()
        elif self._encoding == "lz4":
            self._decompressor = lz4.frame.LZ4FrameDecompressor()
        else:
            raise refusal(
                UNKNOWN_COMPRESSION_METHOD,
                f"Unknown Content-Encoding {self._encoding!r}: expected gzip, deflate, zstd or lz4.",
            )

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """The bytes that `data` completes, in pieces of at most PIECE. Raises Refusal."""
        while True:
            if self._decompressor.eof:  # another frame or member may follow
                data = (self._decompressor.unused_data or b"") + data
                if not data:
                    return
                self._new()
            self._begun = self._begun or bool(data)
            try:
                piece = self._decompressor.decompress(data, PIECE)
            except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
                raise refusal(CANNOT_DECOMPRESS, f"Cannot decompress the {self._encoding} body: {error}") from error
            data = getattr(self._decompressor, "unconsumed_tail", b"")
            if piece:
                yield piece
            more = data or len(piece) == PIECE or not getattr(self._decompressor, "needs_input", True)
            if not more and not self._decompressor.eof:
                return

    def finish(self) -> None:
        """Say so when the body ended in the middle."""
        if self._begun and not self._decompressor.eof:
            raise refusal(CANNOT_DECOMPRESS, f"The {self._encoding} body ends in the middle.")
