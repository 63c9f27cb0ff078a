"""The few things of HTTP that this provider needs, over bare ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from tests.fakes.openrouter.served import encode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """A request whose body was read whole; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def secret(self) -> str | None:
        """The API key: a bearer token or x-api-key."""
        bearer = self.headers.get("authorization", "")
        return bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else self.headers.get("x-api-key")


async def read(scope: Scope, receive: Receive) -> Request:
    """The request, its body read to the end."""
    body = bytearray()
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            break
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode())),
        headers={name.decode().lower(): value.decode() for name, value in scope["headers"]},
        body=bytes(body),
    )


async def answer(send: Send, status: int, document: object, headers: dict[str, str] | None = None) -> None:
    """One JSON answer."""
    body = encode(document)
    names = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await _start(send, status, names)
    await send({"type": "http.response.body", "body": body})


async def stream(
    send: Send, receive: Receive, events: Iterable[bytes], *, headers: dict[str, str], delay_s: float, whole: bool
) -> bool:
    """Server-sent events with a pause before each; whole=False ends by closing the connection. True unless the client
    left first."""
    await _start(send, 200, {"content-type": "text/event-stream", "cache-control": "no-cache", **headers})
    gone = asyncio.ensure_future(_gone(receive))
    try:
        for event in events:
            await asyncio.wait({gone}, timeout=delay_s)
            if gone.done():
                return False
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if whole:
            await send({"type": "http.response.body", "body": b""})
        return True
    finally:
        gone.cancel()


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
