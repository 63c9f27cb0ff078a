"""A response's byte stream that lets the bytes by and shows each to an exchange.

The app can't tell it from the original: same bytes in the same pieces, as lazy, errors raised unchanged, close() and
aclose() passed on, every other attribute the original's. The exchange ends once: with the stream, an error, close(),
or when nobody holds the stream any more.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from spendwatch.hooks.exchange import PIECE, Exchange
from spendwatch.hooks.usage import Without


class _Passing:
    _stream: Any
    _exchange: Exchange | None
    """None once it has ended."""
    _without: Without | None
    """What takes an event out of the stream that the app didn't ask for; None: every byte is passed on as it came."""

    def __init__(self, stream: Any, exchange: Exchange, without: Without | None = None) -> None:
        self._stream = stream
        self._exchange = exchange
        self._without = without

    def __getattr__(self, name: str) -> Any:
        if name in ("_stream", "_exchange", "_without"):  # not there yet, or not any more: no way to look further
            raise AttributeError(name)
        return getattr(self._stream, name)

    def __del__(self) -> None:
        exchange = self.__dict__.get("_exchange")
        if exchange is not None:
            exchange.end(complete=False)

    def _end(self, *, complete: bool, error: BaseException | None = None) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._exchange = None
            exchange.end(complete=complete, error=error)


class PassingSync(_Passing):
    """For a sync client. Mixed with the client's own SyncByteStream by bodies()."""

    def __iter__(self) -> Iterator[bytes]:
        exchange = self._exchange
        if exchange is None:
            yield from self._stream
            return
        pass_on, hold, without = exchange.pass_on, exchange.held.append, self._without
        room = 0
        try:
            for chunk in self._stream:
                room -= len(chunk) + PIECE
                if room > 0:
                    hold(chunk)
                else:
                    room = pass_on(chunk)
                if without is None:
                    yield chunk
                elif passed := without.feed(chunk):
                    yield passed
            if without is not None and (passed := without.close()):
                yield passed
        except BaseException as exc:
            self._end(complete=False, error=exc)
            raise
        self._end(complete=True)

    def close(self) -> None:
        try:
            self._stream.close()
        except BaseException as exc:
            self._end(complete=False, error=exc)
            raise
        if self._exchange is not None:
            self._end(complete=False)


class PassingAsync(_Passing):
    """For an async client. Mixed with the client's own AsyncByteStream by bodies()."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        inner = self._stream.__aiter__()
        if exchange is None:
            async for chunk in inner:
                yield chunk
            return
        pass_on, hold, without = exchange.pass_on, exchange.held.append, self._without
        room = 0
        try:
            async for chunk in inner:
                room -= len(chunk) + PIECE
                if room > 0:
                    hold(chunk)
                else:
                    room = pass_on(chunk)
                if without is None:
                    yield chunk
                elif passed := without.feed(chunk):
                    yield passed
            if without is not None and (passed := without.close()):
                yield passed
        except BaseException as exc:
            self._end(complete=False, error=exc)
            raise
        finally:
            # A generator left half way is closed now, in this task, not some time by the event loop.
            if isinstance(inner, AsyncGenerator):
                await inner.aclose()
        self._end(complete=True)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException as exc:
            self._end(complete=False, error=exc)
            raise
        if self._exchange is not None:
            self._end(complete=False)


def bodies(module: Any) -> tuple[type[PassingSync], type[PassingAsync]]:
    """The two stream classes for one client module, each an instance of that module's own base class."""
    name = module.__name__
    sync = type("PassingSync", (PassingSync, module.SyncByteStream), {"__module__": f"spendwatch.hooks.{name}"})
    asynchronous = type(
        "PassingAsync", (PassingAsync, module.AsyncByteStream), {"__module__": f"spendwatch.hooks.{name}"}
    )
    return sync, asynchronous
