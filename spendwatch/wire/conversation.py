"""A request's conversation in one form, whichever wire format it came in, for the fingerprints.

Only the system prompt and the last messages are taken apart. Ids of tool calls are left out: they differ in every
repetition. Thinking blocks, too: one format sends them back, the other does not. Never here: hashing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from spendwatch.fingerprint import Fingerprinter, Message, PromptPrint, Text
from spendwatch.wire.jsonread import encoded, loads, mapping, text
from spendwatch.wire.requests import Asked

_MAX_TOOL_RUN = 16


def chat_prompt(asked: Asked, fingerprints: Fingerprinter) -> PromptPrint | None:
    """The prints of a request with `messages` (OpenAI's or Anthropic's), or a bare `prompt`."""
    if asked.last is not None:
        role = mapping(loads(bytes(asked.last[:32]).split(b",")[0] + b"}")).get("role")
        last = [Message(role=text(role) or "user", raw=asked.last)]
    elif asked.messages:
        last = last_messages(_backwards(asked.messages[-_MAX_TOOL_RUN:]))
    elif "prompt" in asked.parts:
        prompt = loads(bytes(asked.parts["prompt"]))
        last = [Message(role="user", texts=texts(prompt if isinstance(prompt, list) else [prompt]))]
    else:
        return None
    return fingerprints.prompt(system=_system(asked), prefix=_prefix(asked), last=last, messages=asked.count)


def responses_prompt(asked: Asked, fingerprints: Fingerprinter) -> PromptPrint | None:
    """The prints of a request to OpenAI's Responses API: `input` is a text or a list of items."""
    if asked.last is not None or asked.messages:
        return chat_prompt(asked, fingerprints)
    given = loads(bytes(asked.parts["input"])) if "input" in asked.parts else None
    if not isinstance(given, str):
        return None
    return fingerprints.prompt(
        system=_system(asked), prefix=_prefix(asked), last=[Message(role="user", texts=[given])], messages=1
    )


_ROLE = re.compile(rb'\s*\{\s*"role"\s*:\s*"(\w+)"')
_SYSTEM_ROLES = (b"system", b"developer")


def _loaded(raw: msgspec.Raw) -> dict[str, Any]:
    return mapping(loads(bytes(raw)))


def _backwards(messages: Sequence[msgspec.Raw]) -> Iterator[dict[str, Any]]:
    """The messages, the last one first. What a system prompt before that one says is not asked for."""
    yield _loaded(messages[-1])
    for raw in reversed(messages[:-1]):
        opening = _ROLE.match(raw)
        yield {"role": "system"} if opening is not None and opening[1] in _SYSTEM_ROLES else _loaded(raw)


def _system(asked: Asked) -> list[str]:
    """The system prompt's texts: a member of its own, or the messages before the first one of the user."""
    found: list[str] = []
    for name in ("system", "instructions"):
        if name in asked.parts:
            value = loads(bytes(asked.parts[name]))
            found += texts(value if isinstance(value, list) else [value])
    opening = [asked.parts["first"]] if "first" in asked.parts else asked.messages[:4]
    for raw in opening:
        begins = _ROLE.match(raw)
        if begins is not None and begins[1] not in _SYSTEM_ROLES:
            break
        message = _loaded(raw)
        if message.get("role") not in ("system", "developer"):
            break
        content = message.get("content")
        found += texts(content if isinstance(content, list) else [content])
    return found


def _prefix(asked: Asked) -> list[Text]:
    parts: list[Text] = [
        memoryview(asked.parts[name]) for name in ("system", "instructions", "tools") if name in asked.parts
    ]
    if asked.before is not None:
        parts.append(asked.before)
    elif len(asked.messages) > 1:
        parts.append(b",".join(asked.messages[:-1]))
    return parts


def last_messages(backwards: Iterable[dict[str, Any]]) -> list[Message]:
    """The last two messages, of messages given from the last one backwards, no more of which are read than needed.

    Tool results in a row count as one, and so do an assistant's text and calls: some formats send them apart, others
    together.
    """
    found: list[Message] = []
    for value in backwards:
        message = read_message(value)
        if not message.role:
            continue
        if found and found[-1].role == message.role and message.role in ("tool", "assistant"):
            kept = found[-1]
            kept.texts[:0] = message.texts
            kept.media[:0] = message.media
            kept.calls[:0] = message.calls
            if kept.is_error is None:
                kept.is_error = message.is_error
            continue
        if len(found) == 2:
            break
        found.append(message)
    found.reverse()
    return found


def read_message(value: dict[str, Any]) -> Message:
    """One message of OpenAI's or Anthropic's shape."""
    role = text(value.get("role")) or ""
    message = Message(role="system" if role == "developer" else role)
    kind = value.get("type")
    if not role and kind in ("function_call", "custom_tool_call"):
        # The Responses API sends each call and each result as an item of its own.
        message.role = "assistant"
        _openai_call({"name": value.get("name"), "arguments": value.get("arguments") or value.get("input")}, message)
        return message
    if not role and kind in ("function_call_output", "custom_tool_call_output"):
        _block(value, message)
        return message
    content = value.get("content")
    if isinstance(content, str):
        if content:
            message.texts.append(content)
        if role and role != "function" and len(value) == 2:
            return message
    elif isinstance(content, list):
        for block in content:
            _block(block, message)
    calls = value.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        _openai_call(mapping(mapping(call).get("function")), message)
    if isinstance(value.get("function_call"), dict):
        _openai_call(value["function_call"], message)
    if role == "function":
        message.role = "tool"
    return message


def _openai_call(function: dict[str, Any], message: Message) -> None:
    arguments = function.get("arguments")
    message.calls.append(
        (
            text(function.get("name")) or "",
            arguments.encode("utf-8", "surrogatepass") if isinstance(arguments, str) else b"",
        )
    )


def _block(block: Any, message: Message) -> None:
    """One part of a message's content."""
    if isinstance(block, str):
        message.texts.append(block)
        return
    part = mapping(block)
    kind = part.get("type")
    if kind in ("thinking", "redacted_thinking", "reasoning"):
        return
    if kind == "tool_use":
        message.calls.append((text(part.get("name")) or "", encoded(part.get("input"))))
    elif kind in ("tool_result", "function_call_output", "custom_tool_call_output"):
        message.role = "tool"
        content = part.get("content", part.get("output"))
        for inner in content if isinstance(content, list) else [content]:
            _block(inner, message)
        if isinstance(part.get("is_error"), bool):
            message.is_error = bool(message.is_error) or part["is_error"]
    elif isinstance(part.get("text"), str):
        message.texts.append(part["text"])
    elif part:
        message.media.append(_media(part))


def _media(part: dict[str, Any]) -> str:
    """What stands for an image, a file or a recording: its data or address, without the wrapping."""
    source = part.get("source") or part.get("image_url") or part.get("input_audio") or part.get("file")
    inner = mapping(source)
    found = inner.get("data") or inner.get("url") or inner.get("file_data") or inner.get("file_id") or source
    if not isinstance(found, str):
        return str(part.get("type"))
    return found.partition(";base64,")[2] or found


def texts(parts: list[Any]) -> list[str]:
    """The texts of a list of strings and text parts."""
    found = []
    for part in parts:
        value = part if isinstance(part, str) else mapping(part).get("text")
        if isinstance(value, str) and value:
            found.append(value)
    return found
