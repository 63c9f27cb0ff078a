"""Content decoding for the reader's copy of a body: gzip and deflate by zlib, br and zstd by what the client uses.

Incremental and in bounded pieces, so that a small compressed body can't unfold into memory at once. The app gets the
bytes as they came; nothing here touches them. A body that can't be decoded is given up, with a reason in `note`.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

PIECE = 256 * 1024

# Modules that httpx and httpx2 decode with, where the app has them installed; never imported for our sake.
_BROTLI = ("brotli", "brotlicffi")
_ZSTD = ("compression.zstd", "backports.zstd", "zstandard")


class Decoder:
    """Undoes one content-encoding header. feed() gives decoded pieces; after a fault it gives none and has a note."""

    __slots__ = ("_steps", "note")

    def __init__(self, encoding: str) -> None:
        self.note: str | None = None
        self._steps: list[Callable[[bytes], Iterator[bytes]]] = []
        # The header lists the encodings in the order they were applied; undo the last one first.
        for name in reversed([part.strip().lower() for part in encoding.split(",")]):
            if name in ("", "identity"):
                continue
            step = _step(name)
            if step is None:
                self.note = f"reply is encoded with {name}, which nothing in this process can decode"
                return
            self._steps.append(step)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of the next bytes of the body."""
        if self.note is not None:
            return iter(())
        return self._run(data, 0)

    def _run(self, data: bytes, index: int) -> Iterator[bytes]:
        if index == len(self._steps):
            yield data
            return
        try:
            for piece in self._steps[index](data):
                yield from self._run(piece, index + 1)
        except Exception as exc:  # noqa: BLE001  # each library has its own; a broken body is the app's to see
            self.note = f"reply could not be decoded ({type(exc).__name__})"


def decoder(encoding: str | None) -> Decoder | None:
    """A decoder for the header's value; None when the body is as it is."""
    if not encoding or encoding.strip().lower() == "identity":
        return None
    return Decoder(encoding)


def _step(name: str) -> Callable[[bytes], Iterator[bytes]] | None:
    if name in ("gzip", "x-gzip"):
        return _Zlib(zlib.MAX_WBITS | 16)
    if name == "deflate":
        return _Zlib(None)
    if name == "br":
        module = _loaded(_BROTLI)
        return _brotli(module.Decompressor()) if module is not None else None
    if name == "zstd":
        module = _loaded(_ZSTD)
        if module is None:
            return None
        make = module.ZstdDecompressor
        return _Zstd((lambda: make().decompressobj()) if module.__name__ == "zstandard" else make)
    return None


def _loaded(names: tuple[str, ...]) -> Any:
    for name in names:
        if name in sys.modules:
            return sys.modules[name]
    return None


class _Zlib:
    """gzip (also several members one after the other) or deflate (zlib-wrapped or raw: servers send both)."""

    __slots__ = ("_object", "_wbits")

    def __init__(self, wbits: int | None) -> None:
        self._wbits = wbits
        self._object: Any = zlib.decompressobj(wbits) if wbits is not None else None

    def __call__(self, data: bytes) -> Iterator[bytes]:
        if self._object is None:
            if not data:
                return
            # RFC 1950: a zlib header has 8 in its low four bits and is a multiple of 31 as a 16-bit number.
            wrapped = data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)
            self._object = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        while data:
            piece = self._object.decompress(data, PIECE)
            if piece:
                yield piece
            data = self._object.unconsumed_tail
            if self._object.eof:
                data = self._object.unused_data
                if not data or self._wbits is None:
                    return
                self._object = zlib.decompressobj(self._wbits)


def _brotli(machine: Any) -> Callable[[bytes], Iterator[bytes]]:
    work = machine.decompress if hasattr(machine, "decompress") else machine.process

    def step(data: bytes) -> Iterator[bytes]:
        piece = work(data)
        if piece:
            yield piece

    return step


class _Zstd:
    """zstd, also several frames one after the other."""

    __slots__ = ("_make", "_object")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._object = make()

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._object.eof:
                self._object = self._make()
            piece = self._object.decompress(data)
            if piece:
                yield piece
            data = self._object.unused_data if self._object.eof else b""
