"""Asking for the token usage that OpenAI-shaped chat streams leave out, and keeping the answer from the app.

Only with instrument(request_stream_usage=True), and only to providers known to understand it (by host, or as named in
`hosts`): others may refuse a request with a member they don't know. The app's own request object is left as it is; a
copy goes out. Of the reply the app gets every byte but the one event it didn't ask for. Never here: a request whose
app speaks of stream_options itself.
"""

from typing import Any

import msgspec

from spendwatch.wire import Reader, Request

FORMATS = frozenset({"openai_chat", "openai_completions"})
PROVIDERS = frozenset(
    {"openai", "azure.ai.openai", "azure.ai.inference", "ollama", "vllm", "llamacpp", "lm_studio", "sglang"}
)
"""Providers whose streams state no usage unless asked, and take the question."""

_QUESTION = b',"stream_options":{"include_usage":true}}'


def question(request: Request, reader: Reader) -> bytes | None:
    """The request's body with the question in it; None when it is not to be asked."""
    body = request.body
    if body is None or reader.wire_format not in FORMATS or reader.provider not in PROVIDERS:
        return None
    if not reader.asked_for_stream or b'"stream_options"' in body:
        return None
    stripped = body.rstrip()
    # An empty object can't have asked for a stream, so something stands before the closing brace.
    return stripped[:-1] + _QUESTION if stripped.endswith(b"}") else None


def asking(module: Any, request: Any, body: bytes) -> Any:
    """A copy of an httpx or httpx2 request that carries `body` and wants its reply uncompressed."""
    headers = request.headers.copy()
    headers["content-length"] = str(len(body))
    # What is taken out of a stream must be legible.
    headers["accept-encoding"] = "identity"
    return module.Request(
        request.method,
        request.url,
        headers=headers,
        stream=module.ByteStream(body),
        extensions=request.extensions,
    )


_REPLACED = frozenset({"content-length", "transfer-encoding", "accept-encoding"})


def asking_headers(headers: Any, body: bytes) -> Any:
    """A copy of a client's headers for a request that carries `body` and wants its reply uncompressed."""
    changed = headers.copy() if headers is not None else {}
    for name in [name for name in changed if _text(name).lower() in _REPLACED]:
        if name in changed:  # a mapping that knows no case may have taken it away already
            del changed[name]
    changed["Content-Length"] = str(len(body))
    changed["Accept-Encoding"] = "identity"
    return changed


def _text(name: Any) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


class Without:
    """An event stream without the event that holds nothing but usage. Events are passed on whole, as they end."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be passed on after these bytes."""
        data = self._rest + data
        out = bytearray()
        at = 0
        while (end := _end_of_event(data, at)) is not None:
            if not _only_usage(data[at:end]):
                out += data[at:end]
            at = end
        self._rest = data[at:]
        return bytes(out)

    def close(self) -> bytes:
        """What is left when the stream has ended."""
        rest, self._rest = self._rest, b""
        return rest


def without(whole: bytes) -> bytes:
    """A whole stream without that event."""
    hiding = Without()
    return hiding.feed(whole) + hiding.close()


def _end_of_event(data: bytes, at: int) -> int | None:
    ends = [found + len(blank) for blank in (b"\n\n", b"\r\n\r\n", b"\r\r") if (found := data.find(blank, at)) >= 0]
    return min(ends) if ends else None


def _only_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return False
    return isinstance(found, dict) and found.get("choices") == [] and isinstance(found.get("usage"), dict)
