"""LM Studio's own chat, plain and streamed; its OpenAI-shaped endpoints are read as such.

The counts stand in `stats`, reasoning included in the output; a stream repeats the whole reply in chat.end:
lmstudio.ai/docs/developer/rest/chat.
"""

from typing import Any

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.jsonread import Shape, count, loads, mapping, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import Tally

_MAX_TOOLS = 256


class Chat(msgspec.Struct, gc=False):
    """A whole reply; in a stream also the envelope of every event."""

    type: str | None = None
    model_instance_id: str | None = None
    response_id: str | None = None
    output: list[Any] | None = None
    stats: Any = None
    content: Any = None
    error: Any = None
    result: "Chat | None" = None


_SHAPE = Shape(Chat)


class LMStudioReader(Reader):
    """Reads one chat."""

    wire_format = "lmstudio_chat"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        if self.fingerprints is not None and self.request.body:
            body = mapping(loads(self.request.body))
            system = text(body.get("system_prompt"))
            given = body.get("input")
            parts = given if isinstance(given, list) else [given]
            turn = {"role": "user", "content": [mapping(one).get("content", one) for one in parts]}
            self.prompt = prompts.message_prompt([turn], [system] if system is not None else [], self.fingerprints)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self._take(found, spoken=True)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            return
        kind = found.type or name.decode("utf-8", "replace")
        if kind == "message.delta" and isinstance(found.content, str):
            if self.said is not None:
                self.said.text(found.content)
        elif kind == "chat.end":
            self.ended = True
            if found.result is not None:
                self._take(found.result, spoken=False)
        elif kind == "error" or found.error:
            self.read_error(loads(data))
        elif found.model_instance_id:
            self.response_model = found.model_instance_id

    def _take(self, found: Chat, *, spoken: bool) -> None:
        self.response_id = found.response_id or self.response_id
        self.response_model = found.model_instance_id or self.response_model
        if found.error:
            self.read_error({"error": found.error})
        stats = mapping(found.stats)
        if stats:
            self.tally = Tally(
                input_tokens=count(stats.get("input_tokens")),
                output_tokens=count(stats.get("total_output_tokens")),
                reasoning_output_tokens=count(stats.get("reasoning_output_tokens")),
            )
        ran: list[str] = []
        for item in map(mapping, found.output or ()):
            said = item.get("content")
            if spoken and item.get("type") == "message" and isinstance(said, str) and self.said is not None:
                self.said.text(said)
            name = text(item.get("tool"))
            if item.get("type") == "tool_call" and name is not None and len(ran) < _MAX_TOOLS:
                ran.append(name)
        if ran:
            # LM Studio runs them itself (MCP).
            self.attributes["server_tools"] = ",".join(ran)
