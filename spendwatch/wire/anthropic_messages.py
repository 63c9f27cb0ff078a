"""Anthropic's messages, plain and streamed, wherever they are served: Anthropic, Vertex, Foundry, gateways.

`input_tokens` on the wire leaves out what was read from and written to the cache; here all of it is added up. In a
stream message_start states the input and a placeholder for the output; message_delta then overwrites, value by value.
Passes listed in usage.iterations that the top level leaves out (compaction) are billed, and so added; passes of another
model (advisor) are kept apart. A stream that broke before its message_delta has an unknown output, not the placeholder.
"""

from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Run, Shape, count, encoded, loads, mapping, tail_object, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.sse import Event, run
from spendwatch.wire.usage import Tally, read_cost

_MAX_TOOLS = 256


class Block(msgspec.Struct, gc=False):
    """A content block, or the start of one."""

    type: str | None = None
    text: str | None = None
    name: str | None = None
    input: Any = None


class Delta(msgspec.Struct, gc=False):
    """The next piece of a block, or the message's last members."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Message(msgspec.Struct, gc=False):
    """A whole message; in a stream also the envelope of every event."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    provider: Any = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    usage: Any = None
    error: Any = None
    index: int | None = None
    message: "Message | None" = None
    delta: Delta | None = None
    content_block: Block | None = None


class MoreText(msgspec.Struct, gc=False):
    """A delta that brings a piece of text, or of what isn't kept (thinking, a signature)."""

    text: str | None = None
    partial_json: None = None


class TextDelta(msgspec.Struct, gc=False):
    """The common event of a stream."""

    type: Literal["content_block_delta"]
    delta: MoreText


_SHAPE = Shape(Message)
_SEVERAL = Run(Message)
_TEXT_DELTAS = Run(TextDelta)
_DELTA = b"event: content_block_delta\ndata: "
_SERVER_TOOLS = ("server_tool_use", "mcp_tool_use")


class MessagesReader(Reader):
    """Reads one message."""

    wire_format = "anthropic_messages"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model or _model_in_path(self.request.path)
        self.asked_for_stream = asked.stream or ":streamRawPredict" in self.request.path
        if self.fingerprints is not None:
            self.prompt = conversation.chat_prompt(asked, self.fingerprints)
        self._usage: dict[str, Any] = {}
        self._server_tools: list[str] = []
        self._delta_seen = False

    def document(self, data: bytes) -> None:
        message = _SHAPE.read(data)
        if message is None:
            self._usage = mapping(tail_object(data, "usage"))
            if self.note is None:
                self.note = f"reply is no JSON object ({len(data)} bytes)"
            return
        if message.error or message.type == "error":
            self.read_error(loads(data))
        self._delta_seen = True
        self._message(message)

    def block(self, block: bytes) -> None:
        found = run(block, _DELTA)
        deltas = _TEXT_DELTAS.read(found[1]) if found is not None else None
        if found is None or deltas is None:
            super().block(block)
            return
        before, _, after = found
        if before:
            super().block(before)
        if self.said is not None:
            self.said.text("".join([delta.delta.text or "" for delta in deltas]))
        if after:
            super().block(after)

    def events(self, events: list[Event]) -> None:
        several = _SEVERAL.read([data for _, data in events])
        if several is None:
            super().events(events)
        else:
            for (_, data), read in zip(events, several, strict=True):
                self._event(read, data)

    def event(self, name: bytes, data: bytes) -> None:
        read = _SHAPE.read(data)
        if read is not None:
            self._event(read, data)
        elif name == b"error" and self.error is None:
            self.error = (None, None)

    def _event(self, read: Message, data: bytes) -> None:
        kind = read.type
        if kind == "content_block_delta":
            delta = read.delta
            if delta is not None and self.said is not None:
                if delta.text:
                    self.said.text(delta.text)
                elif delta.partial_json:
                    self.said.call(read.index, None, delta.partial_json)
        elif kind == "content_block_start":
            if read.content_block is not None:
                self._block(read.index, read.content_block)
        elif kind == "message_start":
            if read.message is not None:
                self._message(read.message)
        elif kind == "message_delta":
            self._delta_seen = True
            if read.delta is not None and read.delta.stop_reason:
                self.finish_reasons[0] = read.delta.stop_reason
            self._merge(read.usage)
        elif kind == "message_stop":
            self.ended = True
        elif read.error or kind == "error":
            self.read_error(loads(data))

    def closing(self) -> None:
        if not self._usage:
            return
        answered = fallback(self._usage)
        if answered is not None:
            # message_start told of the model that declined, and of what that one had cached.
            self.response_model = text(answered.get("model")) or self.response_model
            self._usage["cache_creation"] = answered.get("cache_creation")
        tally = read_anthropic(self._usage)
        if not self._delta_seen:
            tally.output_tokens = None
        self.tally = tally
        others = other_models(self._usage)
        if others:
            self.attributes["other_model_usage"] = msgspec.json.encode(others).decode()
        searches = count(mapping(self._usage.get("server_tool_use")).get("web_search_requests"))
        if searches:
            self.attributes["web_searches"] = str(searches)
        if self._server_tools:
            self.attributes["server_tools"] = ",".join(self._server_tools)

    def _message(self, message: Message) -> None:
        self.response_id = message.id or self.response_id
        self.response_model = message.model or self.response_model
        self.serving_provider = text(message.provider) or self.serving_provider
        if message.stop_reason:
            self.finish_reasons[0] = message.stop_reason
        for place, block in enumerate(message.content or ()):
            self._block(place, block)
        self._merge(message.usage)

    def _block(self, index: int | None, block: Block) -> None:
        if block.type == "tool_use":
            if block.name and len(self.tools) < _MAX_TOOLS:
                self.tools.append(block.name)
            if self.said is not None:
                # In a stream the input starts as {} and follows in pieces.
                self.said.call(index, block.name, encoded(block.input) if block.input else None)
        elif block.type in _SERVER_TOOLS:
            if block.name and len(self._server_tools) < _MAX_TOOLS:
                self._server_tools.append(block.name)
        elif block.text and block.type == "text" and self.said is not None:
            self.said.text(block.text)

    def _merge(self, usage: Any) -> None:
        """Every value of a later usage that is not null stands in place of the earlier one."""
        for name, value in mapping(usage).items():
            if value is not None:
                self._usage[name] = value


def read_anthropic(usage: dict[str, Any]) -> Tally:
    """An Anthropic usage object (of a stream: merged)."""
    tally = Tally()
    _add_pass(usage, tally)
    for one in _iterations(usage):
        # The top level holds every pass of the called model except compactions.
        if one.get("type") == "compaction":
            _add_pass(one, tally)
    read_cost(usage, tally)
    tier = text(usage.get("service_tier"))
    # Fast mode is priced like a service tier of its own, but stated beside it.
    tally.service_tier = "fast" if usage.get("speed") == "fast" and tier in (None, "standard") else tier
    return tally


def _add_pass(usage: dict[str, Any], tally: Tally) -> None:
    fresh = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    lifetimes = mapping(usage.get("cache_creation"))
    hour = count(lifetimes.get("ephemeral_1h_input_tokens"))
    five = count(lifetimes.get("ephemeral_5m_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    if written is None and (hour is not None or five is not None):
        written = (hour or 0) + (five or 0)
    if fresh is not None or read or written:
        tally.input_tokens = (tally.input_tokens or 0) + (fresh or 0) + (read or 0) + (written or 0)
    tally.cache_read_input_tokens = _plus(tally.cache_read_input_tokens, read)
    tally.cache_write_input_tokens = _plus(tally.cache_write_input_tokens, written)
    tally.cache_write_1h_input_tokens = _plus(tally.cache_write_1h_input_tokens, hour)
    tally.cache_write_5m_input_tokens = _plus(tally.cache_write_5m_input_tokens, five)
    tally.output_tokens = _plus(tally.output_tokens, count(usage.get("output_tokens")))
    thinking = count(mapping(usage.get("output_tokens_details")).get("thinking_tokens"))
    tally.reasoning_output_tokens = _plus(tally.reasoning_output_tokens, thinking)


def _plus(sofar: int | None, more: int | None) -> int | None:
    return sofar if more is None else (sofar or 0) + more


def _iterations(usage: dict[str, Any]) -> list[dict[str, Any]]:
    found = usage.get("iterations")
    return [mapping(one) for one in found] if isinstance(found, list) else []


def other_models(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """The counts of passes that another model made, by its name: they are at that model's price."""
    served = text(mapping(fallback(usage)).get("model"))
    return [
        {name: value for name, value in one.items() if name in ("model", "type") or count(value) is not None}
        for one in _iterations(usage)
        if _of_another(one, served)
    ]


def fallback(usage: dict[str, Any]) -> dict[str, Any] | None:
    """The pass of the model that answered after another had declined; None when none had."""
    return next((one for one in _iterations(usage) if one.get("type") == "fallback_message"), None)


def _of_another(one: dict[str, Any], served: str | None) -> bool:
    """Whether a pass was an advisor's, or that of a model that declined before the one that answered (fallback)."""
    model, kind = text(one.get("model")), one.get("type")
    return model is not None and (kind == "advisor_message" or (kind == "message" and served not in (None, model)))


def _model_in_path(path: str) -> str | None:
    """The model of a Vertex path: .../models/claude-sonnet-4-5@20250929:rawPredict."""
    _, found, rest = path.partition("/models/")
    return text(unquote(rest.partition(":")[0])) if found else None
