"""Hugging Face's own inference API and its text-generation server: `inputs`, whatever the task is.

What a reply looks like depends on the task, and counts stand in response headers alone (of a stream in its last event).
The model is named by the path, on an endpoint of one's own by nothing: it is kept as an attribute.
"""

from typing import Any

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.jsonread import Shape, count, loads, mapping, text
from spendwatch.wire.reader import Reader


class Token(msgspec.Struct, gc=False):
    """One event of a stream."""

    token: Any = None
    generated_text: str | None = None
    details: Any = None
    error: Any = None
    error_type: str | None = None


_SHAPE = Shape(Token)


class InferenceReader(Reader):
    """Reads one inference."""

    wire_format = "huggingface_inference"
    operation_name = "hf"

    def read_request(self) -> None:
        path = self.request.path.partition("?")[0]
        _, found, model = path.partition("/models/")
        if found and model:
            self.attributes["model"] = model
        body = mapping(loads(self.request.body)) if self.request.body else {}
        self.asked_for_stream = body.get("stream") is True or path.endswith("_stream")
        if self.fingerprints is not None:
            self.prompt = prompts.text_prompt(body, self.fingerprints)

    def document(self, data: bytes) -> None:
        if self.said is None:
            return
        value = loads(data)
        first = value[0] if isinstance(value, list) and value else value
        said = mapping(first).get("generated_text")
        if isinstance(said, str):
            self.said.text(said)

    def event(self, name: bytes, data: bytes) -> None:  # noqa: ARG002 - none has a name
        found = _SHAPE.read(data)
        if found is None:
            return
        if found.error:
            self.error = (found.error_type, None)
        said = mapping(found.token).get("text")
        if isinstance(said, str) and self.said is not None and not mapping(found.token).get("special"):
            self.said.text(said)
        if found.generated_text is not None:
            self.ended = True
            details = mapping(found.details)
            reason = text(details.get("finish_reason"))
            if reason is not None:
                self.finish_reasons[0] = reason
            self.tally.output_tokens = count(details.get("generated_tokens"))
            self.tally.input_tokens = count(details.get("input_length"))

    def closing(self) -> None:
        if self.tally.input_tokens is None:
            self.tally.input_tokens = self._header("x-prompt-tokens")
        if self.tally.output_tokens is None:
            self.tally.output_tokens = self._header("x-generated-tokens")

    def unread(self) -> None:
        """An image or a recording is what some models make."""

    def _header(self, name: str) -> int | None:
        value = self.headers.get(name, "")
        return count(int(value)) if value.isascii() and value.isdecimal() and len(value) < 16 else None
