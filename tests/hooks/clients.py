"""The four clients that one suite runs on: httpx and httpx2, sync and async, behind one plain interface."""

import asyncio
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2


@dataclass(slots=True)
class Kind:
    """One of the four. run() turns an async test body into a plain call; for a sync client it just calls."""

    module: Any
    is_async: bool

    def __str__(self) -> str:
        return f"{self.module.__name__}-{'async' if self.is_async else 'sync'}"

    def client(self, **options: Any) -> Any:
        return (self.module.AsyncClient if self.is_async else self.module.Client)(**options)

    def transport(self, handler: Callable[[Any], Any]) -> Any:
        return self.module.MockTransport(handler)

    def run(self, body: Callable[[Any], Any], **options: Any) -> Any:
        """Open a client, run `body(Client)`, close it. `body` is written with `await_` steps, see Client."""

        async def asynchronous() -> Any:
            async with self.client(**options) as client:
                return await _drive_async(body(Client(client, True)))

        if self.is_async:
            return asyncio.run(asynchronous())
        with self.client(**options) as client:
            return _drive(body(Client(client, False)))


KINDS = [Kind(module, is_async) for module in (httpx, httpx2) for is_async in (False, True)]


def _drive(steps: Any) -> Any:
    """Run a body to its end: each thing it yields is a result already."""
    if not isinstance(steps, types.GeneratorType):
        return steps
    value: Any = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as stop:
            return stop.value


async def _drive_async(steps: Any) -> Any:
    """The same where what it yields may have to be awaited; errors are thrown into the body where they arose."""
    if not isinstance(steps, types.GeneratorType):
        return steps
    send: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            step = send(value)
        except StopIteration as stop:
            return stop.value
        send = steps.send
        try:
            value = await step if asyncio.iscoroutine(step) or hasattr(step, "__await__") else step
        except Exception as exc:
            value, send = exc, steps.throw


class Client:
    """A client whose methods are yielded by a body: `response = yield client.post(...)` in both worlds."""

    def __init__(self, client: Any, is_async: bool) -> None:
        self.raw = client
        self.is_async = is_async

    def post(self, url: str, **options: Any) -> Any:
        return self.raw.post(url, **options)

    def get(self, url: str, **options: Any) -> Any:
        return self.raw.get(url, **options)

    def open(self, url: str, **options: Any) -> Any:
        """Send and return the response unread."""
        return self.raw.send(self.raw.build_request("POST", url, **options), stream=True)

    def read(self, response: Any) -> Any:
        return response.aread() if self.is_async else response.read()

    def close(self, response: Any) -> Any:
        return response.aclose() if self.is_async else response.close()

    def next(self, iterator: Any) -> Any:
        return anext(iterator) if self.is_async else next(iterator)

    def raw_chunks(self, response: Any) -> Any:
        return response.aiter_raw() if self.is_async else response.iter_raw()

    def chunks(self, response: Any) -> Any:
        return response.aiter_bytes() if self.is_async else response.iter_bytes()


def each(client: Client, iterator: Any) -> Iterator[Any]:
    """Collect what an iterator gives: `items = yield from each(client, client.chunks(response))`."""
    items: list[Any] = []
    while True:
        try:
            items.append((yield client.next(iterator)))
        except (StopAsyncIteration, StopIteration):
            return items
