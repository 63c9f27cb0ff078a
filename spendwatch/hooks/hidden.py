"""The file under an http.client response from which the event is missing that request_stream_usage asked for.

It takes the body in the provider's own pieces, shows each to the exchange, and hands on what the app is to see, framed
as the head says: chunks get their new size, and where the head named a length, blank lines at the end make up for what
was taken out (an event stream's reader passes over them). A piece is handed on once its events are whole, as late as
they are. Never here: which event that is (usage.py).
"""

import http.client
from typing import Any

from spendwatch.hooks.exchange import Exchange
from spendwatch.hooks.usage import Without

_PIECE = 64 * 1024


class Hiding:
    """A file in the place of the original. Subclasses know the framing."""

    def __init__(self, file: Any, exchange: Exchange) -> None:
        self._file = file
        self._exchange = exchange
        self._without = Without()
        self._ready = b""
        self._over = False

    def __getattr__(self, name: str) -> Any:
        if name in ("_file", "_exchange"):  # not there yet, or not any more: no way to look further
            raise AttributeError(name)
        return getattr(self._file, name)

    def __del__(self) -> None:
        exchange: Exchange | None = self.__dict__.get("_exchange")
        if exchange is not None:
            exchange.end(complete=False)

    def read(self, size: int | None = -1, /) -> bytes:
        while not self._over and (size is None or size < 0 or len(self._ready) < size):
            self._more()
        return self._taken(size)

    def read1(self, size: int = -1, /) -> bytes:
        while not self._over and not self._ready and size:
            self._more()
        return self._taken(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        most = None if size is None or size < 0 else size
        while not self._over and b"\n" not in self._ready and (most is None or len(self._ready) < most):
            self._more()
        end = self._ready.find(b"\n") + 1 or len(self._ready)
        return self._taken(end if most is None else min(end, most))

    def readinto(self, buffer: Any, /) -> int:
        return self._into(buffer, self.read(len(memoryview(buffer).cast("B"))))

    def readinto1(self, buffer: Any, /) -> int:
        return self._into(buffer, self.read1(len(memoryview(buffer).cast("B"))))

    @staticmethod
    def _into(buffer: Any, data: bytes) -> int:
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def peek(self, size: int = 0, /) -> bytes:  # noqa: ARG002  # as files have it
        while not self._over and not self._ready:
            self._more()
        return self._ready

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            self._exchange.end(complete=False)

    def _taken(self, size: int | None) -> bytes:
        if size is None or size < 0:
            size = len(self._ready)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _more(self) -> None:
        try:
            self._ready += self._next()
        except BaseException as exc:
            self._exchange.end(complete=False, error=exc)
            raise

    def _seen(self, data: bytes) -> bytes:
        """Show it to the exchange; what of it may be handed on now."""
        if data:
            self._exchange.feed(data)
        return self._without.feed(data)

    def _broken_off(self) -> None:
        self._over = True
        self._exchange.end(complete=False, error=http.client.IncompleteRead(b""))

    def _next(self) -> bytes:
        """The next bytes as the app is to read them; b"" when there are none yet. At the end it sets `_over`."""
        raise NotImplementedError


class _Chunks(Hiding):
    """A body in chunks (RFC 9112 7.1)."""

    def _next(self) -> bytes:
        line: bytes = self._file.readline()
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            self._broken_off()  # whoever reads it is to find the fault for himself
            return line
        if size == 0:
            self._over = True
            last = _chunk(self._without.close()) + line
            while (line := self._file.readline()) not in (b"\r\n", b"\n", b""):
                last += line
            self._exchange.end(complete=True)
            return last + line
        data: bytes = self._file.read(size)
        if len(data) < size:
            self._seen(data)
            self._broken_off()
            return line + data
        passed = self._seen(data)
        self._file.readline()
        return _chunk(passed)


class _Plain(Hiding):
    """A body that ends after so many bytes (left), or with the connection (None)."""

    def __init__(self, file: Any, exchange: Exchange, left: int | None) -> None:
        super().__init__(file, exchange)
        self._left = left
        self._owed = 0

    def _next(self) -> bytes:
        data: bytes = self._file.read1(_PIECE if self._left is None else min(_PIECE, self._left))
        passed = self._seen(data)
        if self._left is None:
            if data:
                return passed
            self._over = True
            self._exchange.end(complete=True)
            return passed + self._without.close()
        self._left -= len(data)
        self._owed += len(data) - len(passed)
        if data and self._left:
            return passed
        if self._left:
            self._broken_off()
            return passed
        self._over = True
        rest = self._without.close()
        self._exchange.end(complete=True)
        return passed + rest + b"\n" * (self._owed - len(rest))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def hide(response: Any, exchange: Exchange) -> None:
    """Take the event out of an http.client response of which nothing but the head has been read."""
    if response.chunked:
        response.fp = _Chunks(response.fp, exchange)
    elif response.length == 0:
        exchange.end(complete=True)
    else:
        response.fp = _Plain(response.fp, exchange, response.length)
