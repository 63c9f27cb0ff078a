"""Ollama's own API: /api/chat, /api/generate and /api/embed.

A stream is one JSON object a line, the last of them `done` with the counts; a reply is streamed unless the request says
otherwise. A prompt that was cached whole may come without its count: then it is not known.
"""

from typing import Any

import msgspec

from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Shape, count, encoded, loads, mapping
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import Tally

_MAX_TOOLS = 256


class Said(msgspec.Struct, gc=False):
    """A message, or the next piece of one."""

    content: str | None = None
    tool_calls: list[Any] | None = None


class Line(msgspec.Struct, gc=False):
    """One line of a reply."""

    model: str | None = None
    message: Said | None = None
    response: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: Any = None
    prompt_eval_cached_count: Any = None
    eval_count: Any = None
    error: Any = None


class Ask(msgspec.Struct, gc=False):
    """What a request says of streaming."""

    stream: Any = None


_SHAPE = Shape(Line)
_ASK = Shape(Ask)


class OllamaChatReader(Reader):
    """Reads one chat."""

    wire_format = "ollama_chat"
    lines = True
    streams_by_default = True

    def read_request(self) -> None:
        body = self.request.body
        asked = read_body(body, self.request.headers.get("content-type", ""))
        ask = _ASK.read(body) if body else None
        self.request_model = asked.model
        self.asked_for_stream = self.streams_by_default and (ask is None or ask.stream is not False)
        if self.fingerprints is not None:
            self.prompt = conversation.chat_prompt(asked, self.fingerprints)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            return
        self.response_model = found.model or self.response_model
        if found.error or name == b"error":
            self.read_error({"error": found.error or loads(data)})
        if found.message is not None:
            if found.message.content and self.said is not None:
                self.said.text(found.message.content)
            for call in found.message.tool_calls or ():
                self._call(mapping(mapping(call).get("function")))
        if found.response and self.said is not None:
            self.said.text(found.response)
        if found.done_reason:
            self.finish_reasons[0] = found.done_reason
        if found.done:
            self.ended = True
        if found.eval_count is not None or found.prompt_eval_count is not None:
            self.tally = Tally(
                input_tokens=count(found.prompt_eval_count),
                output_tokens=count(found.eval_count),
                cache_read_input_tokens=count(found.prompt_eval_cached_count),
            )

    def _call(self, function: dict[str, Any]) -> None:
        name = function.get("name")
        if not isinstance(name, str) or len(self.tools) >= _MAX_TOOLS:
            return
        self.tools.append(name)
        if self.said is not None:
            arguments = encoded(function.get("arguments"))
            self.said.call(len(self.tools), name, arguments)


class OllamaGenerateReader(OllamaChatReader):
    """Reads one text completion."""

    wire_format = "ollama_generate"
    operation_name = "text_completion"


class OllamaEmbedReader(OllamaChatReader):
    """Reads one set of embeddings."""

    wire_format = "ollama_embed"
    operation_name = "embeddings"
    streams_by_default = False
