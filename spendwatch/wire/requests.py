"""What a request body says: the model, whether it asks for a stream, and the parts a fingerprint is made of.

A body is never parsed whole: messages stay raw JSON, and of a long history only its two ends are looked at. The
structure found that way is checked against JSON's own grammar, so a role or a model quoted inside a message can't be
mistaken for the request's. Never here: hashing.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from spendwatch.wire.jsonread import Shape, loads, text

LARGE = 96 * 1024
"""Bodies above this are looked at from their ends only."""

_TAIL = 64 * 1024
_NONE = msgspec.Raw(b"")


class Body(msgspec.Struct):
    """The members wanted of any request body; whatever is long stays raw."""

    model: Any = None
    stream: Any = None
    messages: list[msgspec.Raw] = []
    system: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    input: msgspec.Raw = _NONE
    instructions: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE


@dataclass(slots=True)
class Asked:
    """A request body, read as far as needed."""

    model: str | None = None
    stream: bool = False
    messages: Sequence[msgspec.Raw] = ()
    """All messages; of a large body the last ones only."""
    count: int | None = None
    """How many messages there are; None when they were not counted."""
    before: memoryview | None = None
    """Of a large body: the raw bytes before the last message."""
    last: memoryview | None = None
    """Of a large body whose last message is itself large: that message."""
    parts: dict[str, msgspec.Raw] = field(default_factory=dict)
    """Other raw members that are present: system, tools, input, instructions, prompt."""


_SHAPE = Shape(Body)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_PARTS = ("system", "tools", "input", "instructions", "prompt")


def read_body(body: bytes | None, content_type: str, history: str = "messages") -> Asked:
    """What the body says; an empty Asked for one that is absent or not understood.

    history: the member that holds the conversation as a list.
    """
    if not body:
        return Asked()
    if "multipart/" in content_type:
        return Asked(model=_form_field(body, b"model"), stream=(_form_field(body, b"stream") or "").lower() == "true")
    if len(body) > LARGE:
        asked = _from_ends(body, history)
        if asked is not None:
            return asked
    read = _SHAPE.read(body)
    if read is None:
        return Asked()
    asked = Asked(model=text(read.model), stream=read.stream is True, messages=read.messages, count=len(read.messages))
    for name in _PARTS:
        raw = getattr(read, name)
        if raw is not _NONE:
            asked.parts[name] = raw
    if history != "messages" and history in asked.parts:
        asked.messages = _items(asked.parts[history])
        asked.count = len(asked.messages) or None
    return asked


def _items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return _RAWS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


_FORM_VALUE = re.compile(rb"[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n([^\r\n]{0,256})")


def _form_field(body: bytes, name: bytes) -> str | None:
    """A short field of a multipart form, wherever it stands beside the files."""
    mark = b'name="%b"' % name
    at = body.find(mark)
    while at >= 0:
        if body[at - 1 : at] in (b" ", b";"):
            found = _FORM_VALUE.match(body, at + len(mark))
            return text(found[1].decode("utf-8", "replace").strip()) if found else None
        # filename="model"
        at = body.find(mark, at + 1)
    return None


_LOOSE = json.JSONDecoder(strict=False)
_MESSAGE = re.compile(rb'\{\s*"(?:role|content|type|id|name|tool_call_id|tool_calls|refusal|status)"\s*:')
_HUGE_MESSAGE = re.compile(rb'\{\s*"role"\s*:\s*"(?:user|tool|assistant|system|developer)"\s*,\s*"content"\s*:\s*"')
_ITEMS = (
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "custom_tool_call",
    "custom_tool_call_output",
)
_HOPS = 256
_WANTED = 8


def _from_ends(body: bytes, history: str) -> Asked | None:
    """A large body read from its two ends, None when it isn't built as expected.

    {...small members..., "messages": [ ..., last ] , ...small members...}: what stands before the array must be a
    JSON object once it is closed, and so must what stands after it; the last messages must be whole JSON values that
    end exactly where the array does.
    """
    start = body.find(f'"{history}"'.encode(), 0, 4 * _TAIL)
    opening = body.find(b"[", start, start + 32) if start >= 0 else -1
    if opening < 0:
        return None
    head = loads(body[:start].rstrip() + b'"messages":0}')
    if not isinstance(head, dict):
        return None
    spans, members = _last_messages(body, opening)
    if not spans:
        return None
    members = {**head, **members}
    asked = Asked(model=text(members.get("model")), stream=members.get("stream") is True)
    for name in _PARTS:
        if name in members:
            asked.parts[name] = msgspec.Raw(json.dumps(members[name], default=str).encode())
    first = _first_message(body, opening)
    if first is not None:
        asked.parts["first"] = first
    view = memoryview(body)
    asked.before = view[opening : spans[-1][0]]
    if spans[-1][1] - spans[-1][0] > LARGE:
        asked.last = view[slice(*spans[-1])]
    else:
        asked.messages = [msgspec.Raw(body[a:b]) for a, b in spans]
    return asked


def _first_message(body: bytes, opening: int) -> msgspec.Raw | None:
    """The first message, when it is a short one: where OpenAI-shaped requests have their system prompt."""
    window = body[opening + 1 : opening + 1 + 2 * LARGE // 8].decode("utf-8", "replace").lstrip()
    try:
        value, _end = _LOOSE.raw_decode(window)
    except (ValueError, RecursionError):
        return None
    return msgspec.Raw(json.dumps(value).encode())


def _last_messages(body: bytes, opening: int) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """Where the last messages stand, in order, and the members after the array; nothing when that can't be told."""
    stop = max(opening, len(body) - 2 * _TAIL)
    at = len(body)
    for _ in range(_HOPS):
        at = body.rfind(b"]", stop, at)
        if at < 0:
            break
        after = body[at + 1 :].lstrip()
        if not after.startswith((b",", b"}")):
            continue
        try:
            members = msgspec.json.decode(b'{"messages":0' + after)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
        last = _message_before(body, opening, at)
        if last is None:
            continue
        spans = [last]
        while len(spans) < _WANTED:
            comma = body.rfind(b",", opening, spans[0][0])
            if comma < 0 or body[comma + 1 : spans[0][0]].strip():
                break
            previous = _message_before(body, opening, comma)
            if previous is None or previous[1] - previous[0] > LARGE:
                break
            spans.insert(0, previous)
        return spans, members
    return [], {}


def _message_before(body: bytes, opening: int, end: int) -> tuple[int, int] | None:
    """The message that ends right before `end`, as [start, end); None when there is none or it can't be told."""
    while end > opening and body[end - 1] in b" \t\r\n":
        end -= 1
    if body[end - 1 : end] != b"}":
        return None
    at = end
    for hop in range(_HOPS):
        at = body.rfind(b"{", opening, at)
        if at < 0:
            return None
        if body[at - 1] not in b"[, \t\r\n" or not _MESSAGE.match(body, at):
            continue
        if end - at > LARGE:
            # No brace between its own two: one object, however many quotes are in its texts.
            alone = hop == 0 and _HUGE_MESSAGE.match(body, at) and body.rfind(b"}", at, end - 1) < 0
            return (at, end) if alone or _is_one_text(body, at, end) else None
        try:
            message = msgspec.json.decode(memoryview(body)[at:end])
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
        # Whatever is one whole value here is the array's last element, be it a message or not.
        if isinstance(message, dict) and ("role" in message or message.get("type") in _ITEMS):
            return at, end
        return None
    return None


def _is_one_text(body: bytes, start: int, end: int) -> bool:
    """Whether a large stretch is one message whose content is one string: found by its quotes, without parsing it."""
    opened = _HUGE_MESSAGE.match(body, start)
    if opened is None:
        return False
    at = opened.end() - 1
    for _ in range(_HOPS):
        at = body.find(b'"', at + 1, end)
        if at < 0:
            return False
        if _is_quote(body, at):
            break
    else:
        return False
    return isinstance(loads(b'{"content":""' + body[at + 1 : end]), dict) if end - at < LARGE else False


def _is_quote(body: bytes, at: int) -> bool:
    """Whether a quotation mark stands here that isn't part of a text."""
    before = at
    while body[before - 1] == 0x5C:
        before -= 1
    return body[at] == 0x22 and (at - before) % 2 == 0
