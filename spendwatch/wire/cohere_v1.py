"""Cohere's first version: chat with a message and a history, and generate, plain and streamed.

A stream is one JSON object a line; the last one, stream-end, holds the whole reply once more, with its counts:
docs.cohere.com/v1/reference/chat.
"""

from typing import Any

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.cohere_chat import read_cohere
from spendwatch.wire.jsonread import NOT_THERE, Shape, encoded, loads, mapping, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body

_MAX_TOOLS = 256


class Part(msgspec.Struct, gc=False):
    """A whole reply, or one line of a streamed one."""

    id: str | None = None
    response_id: str | None = None
    generation_id: str | None = None
    event_type: str | None = None
    text: str | None = None
    generations: list[Any] | None = None
    tool_calls: list[Any] | None = None
    finish_reason: str | None = None
    is_finished: bool | None = None
    response: msgspec.Raw = NOT_THERE
    meta: Any = None
    error: Any = None


_SHAPE = Shape(Part)


class CohereV1ChatReader(Reader):
    """Reads one chat."""

    wire_format = "cohere_v1_chat"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        self.lines = asked.stream
        self._generation: str | None = None
        if self.fingerprints is not None and self.request.body:
            self.prompt = self.read_prompt(mapping(loads(self.request.body)))

    def read_prompt(self, body: dict[str, Any]) -> Any:
        """The prints of the request."""
        return prompts.cohere_prompt(body, self.fingerprints) if self.fingerprints is not None else None

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self._say(found)
        self._take(found)

    def event(self, name: bytes, data: bytes) -> None:  # noqa: ARG002 - lines have no names
        found = _SHAPE.read(data)
        if found is None:
            return
        self._generation = found.generation_id or self._generation
        ends = found.is_finished is True or found.event_type == "stream-end"
        if not ends:
            self._say(found)
            return
        self.ended = True
        if found.finish_reason:
            self.finish_reasons[0] = found.finish_reason
        if found.error or (found.finish_reason or "").startswith("ERROR"):
            self.error = (text(found.error), None)
        whole = _SHAPE.read(bytes(found.response)) if found.response else None
        if whole is not None:
            self._take(whole)

    def closing(self) -> None:
        self.response_id = self.response_id or self._generation

    def _say(self, found: Part) -> None:
        if self.said is None:
            return
        if found.text:
            self.said.text(found.text)
        for one in (found.generations or ())[:1]:
            said = mapping(one).get("text")
            if isinstance(said, str):
                self.said.text(said)

    def _take(self, found: Part) -> None:
        self.response_id = found.response_id or found.id or self.response_id
        if found.finish_reason:
            self.finish_reasons[0] = found.finish_reason
        for place, one in enumerate((found.generations or ())[:128]):
            reason = text(mapping(one).get("finish_reason"))
            if reason is not None:
                self.finish_reasons[place] = reason
        if found.generations:
            self.attributes["choice_count"] = str(len(found.generations))
        for call in found.tool_calls or ():
            name = text(mapping(call).get("name"))
            if name is not None and len(self.tools) < _MAX_TOOLS:
                self.tools.append(name)
                if self.said is not None:
                    arguments = encoded(mapping(call).get("parameters") or {})
                    self.said.call(len(self.tools), name, arguments)
        if found.meta is not None:
            self.tally = read_cohere(mapping(found.meta))


class CohereGenerateReader(CohereV1ChatReader):
    """Reads one text completion."""

    wire_format = "cohere_generate"
    operation_name = "text_completion"

    def read_prompt(self, body: dict[str, Any]) -> Any:
        return prompts.text_prompt(body, self.fingerprints) if self.fingerprints is not None else None
