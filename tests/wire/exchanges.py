"""One made-up exchange through its real reader, in a few lines: for tables of variants that no recording shows."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply, Request, recognise

KEYED = Fingerprinter(b"a key of the tests")


def request(address: str, sent: Any = None, *, method: str = "POST", headers: dict[str, str] | None = None) -> Request:
    """A request to "host/path" with a JSON body."""
    parts = urlsplit(f"//{address}")
    body = b"" if sent is None else sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Request(
        method, parts.hostname or "", parts.port, path, {"content-type": "application/json", **(headers or {})}, body
    )


def sse(*events: Any, names: bool = False) -> bytes:
    """Events as server-sent ones; a text stands for itself ([DONE]). names: with `event:` lines from their type."""
    lines = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        name = f"event: {event.get('type', event.get('event_type'))}\n" if names and isinstance(event, dict) else ""
        lines.append(f"{name}data: {data}\n\n")
    return "".join(lines).encode()


def lines(*objects: Any) -> bytes:
    """Objects as JSON, one a line."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def read(
    address: str, sent: Any, said: Any, *, status: int = 200, headers: dict[str, str] | None = None,
    method: str = "POST", complete: bool = True, sent_headers: dict[str, str] | None = None,
) -> Reply:  # fmt: skip
    """Read one exchange, whole, and once more byte by byte: both must say the same."""
    asked = request(address, sent, method=method, headers=sent_headers)
    wire = recognise(asked, {})
    assert wire is not None, f"{address} was not recognised"
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    kind = "text/event-stream" if body.startswith((b"data:", b"event:")) else "application/json"
    replies = []
    for pieces in ([body], (body[at : at + 1] for at in range(len(body)))):
        one = wire.reader(asked, KEYED)
        one.head(status, {"content-type": kind, **(headers or {})})
        feed(one, pieces)
        replies.append(one.finish(complete))
    assert replies[0] == replies[1], "the reply differs with how its bytes are split"
    return replies[0]


def feed(reader: Any, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


def facts(reply: Reply, *names: str) -> dict[str, Any]:
    """The named facts of a reply: its own, its counts' and its attributes'."""
    found = {}
    for name in names:
        if hasattr(reply.usage, name):
            found[name] = getattr(reply.usage, name)
        elif hasattr(reply, name):
            found[name] = getattr(reply, name)
        else:
            found[name] = reply.attributes.get(name)
    return found
