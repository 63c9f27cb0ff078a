"""Requests whose conversation is written in a form of its own, brought into the common one for the fingerprints.

Amazon's Converse and Nova (blocks without a type), Cohere's first version (message and chat_history), DashScope
(messages inside input), and bare texts under various names. Never here: hashing, OpenAI's and Anthropic's own forms.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from spendwatch.fingerprint import Fingerprinter, Message, PromptPrint
from spendwatch.wire import conversation
from spendwatch.wire.jsonread import encoded, loads, mapping, text
from spendwatch.wire.requests import Asked

_RUN = 16
_OWN_BLOCKS = (b'"toolUse"', b'"toolResult"', b'"reasoningContent"', b'"cachePoint"', b'"guardContent"')
_ROLES = {"CHATBOT": "assistant", "SYSTEM": "system", "TOOL": "tool"}
_TEXTS = ("prompt", "inputText", "inputs", "input", "text", "message")


def converse_prompt(asked: Asked, fingerprints: Fingerprinter) -> PromptPrint | None:
    """The prints of a request whose messages hold Converse's blocks (other blocks are left as they are)."""
    messages = list(asked.messages)
    for place in range(max(len(messages) - _RUN, 0), len(messages)):
        raw = bytes(messages[place])
        if any(mark in raw for mark in _OWN_BLOCKS):
            messages[place] = msgspec.Raw(encoded(_message(mapping(loads(raw)))))
    asked.messages = messages
    return conversation.chat_prompt(asked, fingerprints)


def _message(value: dict[str, Any]) -> dict[str, Any]:
    content = value.get("content")
    blocks: list[Any] = []
    for block in content if isinstance(content, list) else [content]:
        blocks += _block(block)
    return {**value, "content": blocks}


def _block(block: Any) -> list[Any]:
    part = mapping(block)
    use, result = part.get("toolUse"), part.get("toolResult")
    if isinstance(use, dict):
        return [{"type": "tool_use", "name": use.get("name"), "input": use.get("input")}]
    if isinstance(result, dict):
        said = result.get("content")
        inner = [
            {"text": encoded(one["json"]).decode()} if "json" in one else one
            for one in map(mapping, said if isinstance(said, list) else [])
        ]
        status = result.get("status")
        failed = {"is_error": status == "error"} if isinstance(status, str) else {}
        return [{"type": "tool_result", "content": inner, **failed}]
    if "guardContent" in part:
        return [mapping(part["guardContent"]).get("text")]
    if "reasoningContent" in part or "cachePoint" in part:
        return []
    return [block]


def cohere_prompt(body: Mapping[str, Any], fingerprints: Fingerprinter) -> PromptPrint | None:
    """The prints of a Cohere request of the first version."""
    given = body.get("chat_history")
    history = [mapping(one) for one in given] if isinstance(given, list) else []
    turns = [
        {"role": _ROLES.get(str(one.get("role")).upper(), "user"), "content": one.get("message")} for one in history
    ]
    results = body.get("tool_results")
    if isinstance(results, list) and results:
        outputs = [encoded(mapping(one).get("outputs")).decode() for one in results]
        turns.append({"role": "tool", "content": "\n".join(outputs)})
    elif isinstance(body.get("message"), str):
        turns.append({"role": "user", "content": body["message"]})
    preamble = text(body.get("preamble"))
    system = [preamble] if preamble is not None else []
    return message_prompt(turns, system, fingerprints)


def message_prompt(turns: list[dict[str, Any]], system: list[str], fingerprints: Fingerprinter) -> PromptPrint | None:
    """The prints of messages in OpenAI's form that were found elsewhere than in `messages`."""
    if not turns:
        return None
    opening = 0
    while opening < len(turns) and turns[opening].get("role") in ("system", "developer"):
        content = turns[opening].get("content")
        system = system + conversation.texts(content if isinstance(content, list) else [content])
        opening += 1
    return fingerprints.prompt(
        system=system,
        prefix=[encoded(turns[:-1])] if len(turns) > 1 else [],
        last=conversation.last_messages(reversed(turns[-_RUN:])),
        messages=len(turns),
    )


def text_prompt(body: Mapping[str, Any], fingerprints: Fingerprinter) -> PromptPrint | None:
    """The prints of a request that holds one text, under one of the names in use."""
    for name in _TEXTS:
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("prompt") or value.get("text")
        found = conversation.texts(value if isinstance(value, list) else [value])
        if found:
            return fingerprints.prompt(last=[Message(role="user", texts=found)], messages=1)
    return None
