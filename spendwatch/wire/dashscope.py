"""Alibaba's own API (DashScope, Model Studio): `input` holds the messages, `output` the answer.

A stream repeats the counts so far in every event: the last ones win. A choice that goes on has the finish reason
"null", in quotes. Errors have `code` and `message` at the top: alibabacloud.com/help/en/model-studio.
"""

from typing import Any

import msgspec

from spendwatch.wire import conversation, prompts
from spendwatch.wire.jsonread import Shape, loads, mapping, tail_object, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import first_count, read_openai

_MAX_TOOLS = 256
_OPERATIONS = {"/services/embeddings/": "embeddings", "/services/rerank/": "rerank"}
_IMAGES = ("/text2image/", "/image2image/", "/image-generation/")


class Answer(msgspec.Struct, gc=False):
    """A whole reply, or one event of a streamed one."""

    output: Any = None
    usage: Any = None
    request_id: str | None = None
    code: Any = None
    message: Any = None


_SHAPE = Shape(Answer)


class DashScopeReader(Reader):
    """Reads one call."""

    wire_format = "dashscope"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = self.request.headers.get("x-dashscope-sse") == "enable"
        for mark, operation in _OPERATIONS.items():
            if mark in self.request.path:
                self.operation_name = operation
        if any(mark in self.request.path for mark in _IMAGES):
            self.operation_name = "image_generation"
        if self.fingerprints is not None and "input" in asked.parts:
            given = mapping(loads(bytes(asked.parts["input"])))
            turns = given.get("messages")
            if isinstance(turns, list):
                self.prompt = prompts.message_prompt([mapping(one) for one in turns], [], self.fingerprints)
            else:
                self.prompt = prompts.text_prompt(given, self.fingerprints)

    def document(self, data: bytes) -> None:
        self._read(data, whole=True)

    def event(self, name: bytes, data: bytes) -> None:  # noqa: ARG002 - all are results
        self._read(data, whole=False)

    def _read(self, data: bytes, *, whole: bool) -> None:
        found = _SHAPE.read(data)
        if found is None:
            usage = tail_object(data, "usage")
            if usage is not None:
                self._usage(mapping(usage))
            elif whole:
                self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self.response_id = found.request_id or self.response_id
        if found.usage:
            self._usage(mapping(found.usage))
        if found.code:
            self.error = (None, str(found.code) if isinstance(found.code, int | str) else None)
        output = mapping(found.output)
        choices = output.get("choices")
        for place, choice in enumerate(map(mapping, choices[:128] if isinstance(choices, list) else [])):
            self._choice(place, choice)
        self._finish(0, output.get("finish_reason"))
        if isinstance(output.get("text"), str) and self.said is not None:
            self.said.text(output["text"])

    def _usage(self, usage: dict[str, Any]) -> None:
        self.tally = tally = read_openai(usage)
        if self.operation_name in _OPERATIONS.values() and tally.input_tokens is None:
            tally.input_tokens = tally.total_tokens
        # Of a picture or a sound that was sent: parts of input_tokens.
        tally.input_image_tokens = first_count(tally.input_image_tokens, usage.get("image_tokens"))
        tally.input_audio_tokens = first_count(tally.input_audio_tokens, usage.get("audio_tokens"))

    def _choice(self, place: int, choice: dict[str, Any]) -> None:
        self._finish(place, choice.get("finish_reason"))
        message = mapping(choice.get("message"))
        content = message.get("content")
        if self.said is not None and place == 0:
            for piece in conversation.texts(content if isinstance(content, list) else [content]):
                self.said.text(piece)
        calls = message.get("tool_calls")
        for at, call in enumerate(calls if isinstance(calls, list) else []):
            function = mapping(mapping(call).get("function"))
            name = text(function.get("name"))
            if name is not None and len(self.tools) < _MAX_TOOLS:
                self.tools.append(name)
            arguments = function.get("arguments")
            if self.said is not None and place == 0:
                self.said.call(at, name, arguments if isinstance(arguments, str) else None)

    def _finish(self, place: int, reason: Any) -> None:
        if isinstance(reason, str) and reason and reason != "null":
            self.finish_reasons[place] = reason
            self.ended = True
