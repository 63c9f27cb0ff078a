"""uvicorn's HTTP protocol with the two bounds that it lacks: a deadline for a whole message, and a size for its head.

uvicorn times only the pause between requests. Without a deadline, connections that send a header a minute take up
every place; without a size, one endless header takes the memory.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MESSAGE_S = 60.0
"""From the first byte of a connection or request to the last of its body. Above the time that the application gives to
the body, so that its clear answer comes first."""
HEAD_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Closed without an answer when it breaks a bound: who sends so slowly does not read either."""

    _deadline: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0
        self._start()

    def on_url(self, url: bytes) -> None:
        self._take(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._take(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        self._stop()
        super().on_message_complete()

    def _take(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES:
            self.transport.close()

    def _start(self) -> None:
        self._stop()
        self._deadline = self.loop.call_later(MESSAGE_S, self._too_slow)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
