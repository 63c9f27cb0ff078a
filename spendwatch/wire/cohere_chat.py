"""Cohere's chat, version 2, plain and streamed.

`tokens` counts all that the model saw, its preamble included; `billed_units` is what the invoice counts, and so what is
counted here: docs.cohere.com/v2/docs/how-does-cohere-pricing-work. The usage comes in message-end, which also says when
a stream failed.
"""

from typing import Any

import msgspec

from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Shape, count, loads, mapping, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import Tally, first_count

_MAX_TOOLS = 256


class Said(msgspec.Struct, gc=False):
    """A message, or the next piece of one."""

    content: Any = None
    tool_calls: Any = None


class Delta(msgspec.Struct, gc=False):
    """What an event adds."""

    message: Said | None = None
    finish_reason: str | None = None
    usage: Any = None
    error: Any = None
    error_type: str | None = None


class Chat(msgspec.Struct, gc=False):
    """A whole reply, or one event of a streamed one."""

    type: str | None = None
    id: str | None = None
    index: int | None = None
    message: Any = None
    finish_reason: str | None = None
    usage: Any = None
    delta: Delta | None = None


_SHAPE = Shape(Chat)
_SAID = Shape(Said)


class CohereChatReader(Reader):
    """Reads one chat."""

    wire_format = "cohere_chat"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        if self.fingerprints is not None:
            self.prompt = conversation.chat_prompt(asked, self.fingerprints)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self.response_id = found.id
        if found.finish_reason:
            self.finish_reasons[0] = found.finish_reason
        self.tally = read_cohere(mapping(found.usage))
        message = mapping(found.message)
        content = message.get("content")
        if self.said is not None:
            for piece in conversation.texts(content if isinstance(content, list) else [content]):
                self.said.text(piece)
        calls = message.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            self._call(place, mapping(call))

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            return
        found = _SHAPE.read(data)
        if found is None:
            return
        kind = found.type or name.decode("utf-8", "replace")
        delta = found.delta
        if kind == "message-start":
            self.response_id = found.id
        elif kind == "message-end" and delta is not None:
            self.ended = True
            if delta.finish_reason:
                self.finish_reasons[0] = delta.finish_reason
            self.tally = read_cohere(mapping(delta.usage))
            if delta.error:
                self.error = (delta.error_type, None)
        elif delta is not None and delta.message is not None:
            said = delta.message
            if kind == "content-delta" and self.said is not None:
                piece = mapping(said.content).get("text")
                if isinstance(piece, str):
                    self.said.text(piece)
            elif kind in ("tool-call-start", "tool-call-delta"):
                self._call(found.index, mapping(said.tool_calls))
        elif name == b"error":
            self.read_error({"error": loads(data)})

    def _call(self, place: int | None, call: dict[str, Any]) -> None:
        function = mapping(call.get("function"))
        name = text(function.get("name"))
        arguments = function.get("arguments")
        if name is not None and len(self.tools) < _MAX_TOOLS:
            self.tools.append(name)
        if self.said is not None:
            self.said.call(place, name, arguments if isinstance(arguments, str) else None)


def read_cohere(usage: dict[str, Any]) -> Tally:
    """A version 2 usage object, or a version 1 meta; counts come as floats."""
    tally = Tally()
    tokens = mapping(usage.get("tokens"))
    billed = mapping(usage.get("billed_units"))
    tally.input_tokens = count(billed.get("input_tokens"))
    tally.output_tokens = count(billed.get("output_tokens"))
    tally.input_image_tokens = first_count(tokens.get("image_tokens"), billed.get("image_tokens"))
    if tally.input_tokens is None:
        tally.input_tokens = count(tokens.get("input_tokens"))
        pictures = tally.input_image_tokens
    else:
        # Embeddings bill the pictures beside the text, chats within it.
        pictures = count(billed.get("image_tokens"))
    if tally.input_tokens is not None and pictures:
        tally.input_tokens += pictures
    if tally.output_tokens is None:
        tally.output_tokens = count(tokens.get("output_tokens"))
    tally.reasoning_output_tokens = count(tokens.get("reasoning_tokens"))
    tally.cache_read_input_tokens = count(usage.get("cached_tokens"))
    return tally
