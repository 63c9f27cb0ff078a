"""Mistral's conversations (agents), plain and streamed: docs.mistral.ai/api, "Beta Conversations".

The id of a conversation is shared by all of its turns, so a turn goes by the id of the last entry it put out. Tokens
that connectors (web search, code) fed to the model are counted apart, as connector_tokens, and are input.
"""

from typing import Any

import msgspec

from spendwatch.wire import conversation, prompts
from spendwatch.wire.jsonread import Shape, count, encoded, loads, mapping, tail_object, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import Tally, read_openai

_MAX_TOOLS = 256
_RAN = ("tool.execution", "tool.execution.started")


class Turn(msgspec.Struct, gc=False):
    """A whole reply, or one event of a streamed one."""

    type: str | None = None
    id: str | None = None
    name: str | None = None
    model: str | None = None
    content: Any = None
    arguments: Any = None
    outputs: list[Any] | None = None
    usage: Any = None
    code: Any = None


_SHAPE = Shape(Turn)


class ConversationsReader(Reader):
    """Reads one turn."""

    wire_format = "mistral_conversations"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        self._server_tools: list[str] = []
        self._called: set[str] = set()
        if self.fingerprints is not None and self.request.body:
            body = mapping(loads(self.request.body))
            given = body.get("inputs")
            turns = [_turn(mapping(one)) for one in given] if isinstance(given, list) else [_said(given)]
            system = text(body.get("instructions"))
            self.prompt = prompts.message_prompt(turns, [system] if system is not None else [], self.fingerprints)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self._usage(tail_object(data, "usage"))
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        for entry in found.outputs or ():
            one = _SHAPE.read(encoded(entry))
            if one is not None:
                self._entry(one)
        self._usage(found.usage)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self._usage(tail_object(data, "usage"))
            return
        kind = found.type or name.decode("utf-8", "replace")
        if kind == "conversation.response.done":
            self.ended = True
            self._usage(found.usage)
        elif kind == "conversation.response.error":
            code = found.code
            self.error = (None, str(code) if isinstance(code, int | str) and not isinstance(code, bool) else None)
        else:
            self._entry(found, kind)

    def closing(self) -> None:
        if self._server_tools:
            self.attributes["server_tools"] = ",".join(self._server_tools)

    def _entry(self, found: Turn, kind: str | None = None) -> None:
        """One entry of the reply, or one event of an entry."""
        kind = kind or found.type or ""
        if found.id and not kind.startswith("conversation."):
            self.response_id = found.id
        self.response_model = found.model or self.response_model
        if kind.startswith("message.output"):
            self._say(found.content)
        elif kind.startswith("function.call"):
            arguments = found.arguments
            given = arguments if isinstance(arguments, str) or arguments is None else encoded(arguments)
            key = found.id or ""
            if found.name and key not in self._called and len(self.tools) < _MAX_TOOLS:
                self._called.add(key)
                self.tools.append(found.name)
            if self.said is not None:
                self.said.call(key, found.name, given)
        elif kind in _RAN and found.name and len(self._server_tools) < _MAX_TOOLS:
            self._server_tools.append(found.name)

    def _say(self, content: Any) -> None:
        if self.said is not None:
            parts = content if isinstance(content, list) else [content]
            for piece in conversation.texts(parts):
                self.said.text(piece)

    def _usage(self, usage: Any) -> None:
        if isinstance(usage, dict) and usage:
            self.tally = read_conversation(usage)


def read_conversation(usage: dict[str, Any]) -> Tally:
    """A turn's usage object."""
    prompt, connectors = count(usage.get("prompt_tokens")), count(usage.get("connector_tokens"))
    if prompt is not None and connectors:
        usage = {**usage, "prompt_tokens": prompt + connectors}
    return read_openai(usage)


def _said(given: Any) -> dict[str, Any]:
    return {"role": "user", "content": given}


def _turn(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the inputs in OpenAI's form."""
    kind = entry.get("type")
    if kind == "function.result":
        return {"role": "tool", "content": entry.get("result")}
    if kind == "function.call":
        call = {"name": entry.get("name"), "arguments": entry.get("arguments")}
        return {"role": "assistant", "tool_calls": [{"function": call}]}
    return {"role": text(entry.get("role")) or "user", "content": entry.get("content")}
