"""The file under an http.client response, which lets the bytes by and shows the body in them to an exchange.

http.client.HTTPResponse, and so urllib, urllib3, requests and botocore, take a reply from one buffered file, body and
chunk framing alike. This stands in for that file once the head has been read: the same bytes come in the same pieces
and as late, errors are raised unchanged, every other attribute is the original's. The exchange ends once: with the
body's last byte, an error, close(), or when nobody holds the file any more. Never here: which requests are watched.
"""

import http.client
from typing import Any

from spendwatch.hooks import hidden
from spendwatch.hooks.exchange import Exchange


class _Passing:
    """A file that is read along. Subclasses know where a body ends: saw() takes bytes, ended() the end of the file."""

    __slots__ = ("__weakref__", "_exchange", "_file")

    def __init__(self, file: Any, exchange: Exchange) -> None:
        self._file = file
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        if name in ("_file", "_exchange"):  # not there yet, or not any more: no way to look further
            raise AttributeError(name)
        return getattr(self._file, name)

    def __iter__(self) -> "_Passing":
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def __enter__(self) -> "_Passing":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        exchange: Exchange | None = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.end(complete=False)

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except BaseException as exc:
            self.failed(exc)
            raise
        if data:
            self.saw(data)
        # A buffered file gives less than it was asked for only at its end.
        if size is None or size < 0 or len(data) < size:
            self.ended()
        return data

    def read1(self, size: int = -1, /) -> bytes:
        try:
            data: bytes = self._file.read1(size)
        except BaseException as exc:
            self.failed(exc)
            raise
        if data:
            self.saw(data)
        elif size:
            self.ended()
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._file.readline(size)
        except BaseException as exc:
            self.failed(exc)
            raise
        if data:
            self.saw(data)
        elif size:
            self.ended()
        return data

    def readinto(self, buffer: Any, /) -> int:
        return self._into(self._file.readinto, buffer)

    def readinto1(self, buffer: Any, /) -> int:
        return self._into(self._file.readinto1, buffer)

    def _into(self, readinto: Any, buffer: Any) -> int:
        try:
            count: int = readinto(buffer)
        except BaseException as exc:
            self.failed(exc)
            raise
        if count:
            self.saw(bytes(memoryview(buffer).cast("B")[:count]))
        elif len(buffer):
            self.ended()
        return count

    def close(self) -> None:
        try:
            self._file.close()
        except BaseException as exc:
            self.failed(exc)
            raise
        self._exchange.end(complete=False)

    def failed(self, exc: BaseException) -> None:
        """Reading raised."""
        self._exchange.end(complete=False, error=exc)

    def saw(self, data: bytes) -> None:
        """The next bytes of the reply after its head."""
        raise NotImplementedError

    def ended(self) -> None:
        """There are no more bytes."""
        raise NotImplementedError


class _Plain(_Passing):
    """A body that ends after so many bytes, or with the connection."""

    __slots__ = ("_left",)

    def __init__(self, file: Any, exchange: Exchange, length: int | None) -> None:
        super().__init__(file, exchange)
        self._left = length
        """Bytes to come; None: up to the end of the connection."""

    def saw(self, data: bytes) -> None:
        self._exchange.feed(data)
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._exchange.end(complete=True)

    def ended(self) -> None:
        if self._left is None:
            self._exchange.end(complete=True)
        elif self._left > 0:
            self._exchange.end(complete=False, error=http.client.IncompleteRead(b"", self._left))


class _Chunked(_Passing):
    """A body in chunks, each after a line with its size, the last of size 0 (RFC 9112 7.1).

    Whoever reads chunks reads three times for each, its size, its data and the end of its line, and of those reads
    each is told apart at little cost; whatever else is read is taken apart byte by byte.
    """

    __slots__ = ("_done", "_feed", "_left", "_line", "_read", "_readline")

    def __init__(self, file: Any, exchange: Exchange) -> None:
        super().__init__(file, exchange)
        self._read = file.read
        self._readline = file.readline
        self._feed = exchange.feed
        self._left = 0
        """Bytes to come of the chunk at hand; 0: a line is next, a size or the end of a chunk's own line."""
        self._line = b""
        """The beginning of that line."""
        self._done = False

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._read(size)
        except BaseException as exc:
            self.failed(exc)
            raise
        length = len(data)
        if 0 < length <= self._left:
            self._left -= length
            self._feed(data)
        elif data != b"\r\n" or self._left or self._line:
            self._any(data)
        if length != size:
            self.ended()
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._readline(size)
        except BaseException as exc:
            self.failed(exc)
            raise
        if self._left or self._line or data[-1:] != b"\n":
            self._any(data)
        else:
            self._size(data)
        if not data and size:
            self.ended()
        return data

    def saw(self, data: bytes) -> None:
        self._any(data)

    def ended(self) -> None:
        if not self._done:
            self._exchange.end(complete=False, error=http.client.IncompleteRead(b""))

    def _any(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._done:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                self._feed(piece)
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if end:
                line, self._line = self._line, b""
                self._size(line)

    def _size(self, line: bytes) -> None:
        if self._done or line == b"\r\n":
            return  # a trailer, or the end of a chunk's line
        try:
            self._left = int(line, 16)
        except ValueError:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError:
                self._left = -1
        if self._left <= 0:
            self._done = True
            if self._left:
                self._exchange.end(complete=False, error=http.client.IncompleteRead(b""))
            else:
                self._exchange.end(complete=True)


def watch(response: Any, exchange: Exchange) -> None:
    """Let the body of an http.client response, of which nothing but the head has been read, pass by the exchange."""
    if getattr(response, "fp", None) is None:
        # A test's double of one (vcrpy's, for one), which plays back what it keeps elsewhere.
        exchange.drop()
    elif exchange.question is not None and not response.headers.get("content-encoding"):
        hidden.hide(response, exchange)
    elif response.chunked:
        response.fp = _Chunked(response.fp, exchange)
    elif response.length == 0:
        exchange.end(complete=True)
    else:
        response.fp = _Plain(response.fp, exchange, response.length)
