"""A client's own request, as wire.recognise() wants to see it: plain headers, the host's name, the body's bytes.

Invariant: nothing is consumed that the client has yet to send; a body that can only be seen by reading it is None.
Never here: a particular HTTP library's classes.
"""

import io
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

from spendwatch.wire import Request

DEFAULT_PORTS = {80, 443}


_NAME, _VALUE = itemgetter(0), itemgetter(1)


def raw_headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as they go over the wire, by their lower-case names; of one that is repeated, the last."""
    # An SDK sends about twenty: decoded one by one they would cost as much as reading the whole reply.
    names = b"\n".join(map(_NAME, raw)).decode("latin-1").lower().split("\n")
    values = b"\n".join(map(_VALUE, raw)).decode("latin-1").split("\n")
    return dict(zip(names, values, strict=True)) if len(names) == len(values) == len(raw) else headers(raw)


def headers(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Headers with lower-case names; of one that is repeated, the last. Names and values may be str or bytes."""
    return {_text(name).lower(): _text(value) for name, value in pairs}


COPIED = 8 * 1024 * 1024
"""Bytes at most that are copied to see a body that isn't bytes already; a larger one (an upload) is left alone."""


def body(value: Any) -> bytes | None:
    """The bytes of a request's body; None for one that can't be seen without reading it (a file, a generator)."""
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8", "replace") if len(value) <= COPIED else None
    if isinstance(value, bytearray | memoryview):
        return bytes(value) if memoryview(value).nbytes <= COPIED else None
    if isinstance(value, io.BytesIO):
        with value.getbuffer() as buffer:
            left = buffer[value.tell() :]
            return bytes(left) if len(left) <= COPIED else None
    return None


SHORT = 256
"""Of a form, the values up to this length are looked at."""


def form(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A multipart form as far as it is of interest: each field's name, and the values that are short."""
    return b"".join(
        b'Content-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value if len(value) <= SHORT else b"")
        for name, value in fields
    )


def request(method: str, target: str, host: str, port: int | None, sent_headers: Any, sent_body: Any) -> Request:
    """The request as it goes out. target: a path, or the whole address where a proxy is asked for it."""
    path = target
    if not target.startswith("/"):
        parts = urlsplit(target)
        if parts.hostname:
            host, port = parts.hostname, parts.port
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(
        method=method.upper(),
        host=host.strip("[]").lower(),
        port=None if port in DEFAULT_PORTS else port,
        path=path,
        headers=headers(sent_headers.items() if sent_headers is not None else ()),
        body=body(sent_body),
        default_port=port if port in DEFAULT_PORTS else 443,
    )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else str(value)
