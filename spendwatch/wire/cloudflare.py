"""Cloudflare's own way to run a model (Workers AI), plain and streamed; its OpenAI-shaped endpoints are read as such.

The model stands in the path. A reply is wrapped in `result`: a text with a usage, or whatever else the model makes;
newer models put a whole chat completion there. A stream is not wrapped, and states its usage at its end:
developers.cloudflare.com/workers-ai/models.
"""

from typing import Any
from urllib.parse import unquote

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.jsonread import NOT_THERE, Shape, encoded, loads, mapping, tail_object, text
from spendwatch.wire.openai_chat import ChatReader

MARKS = ("/ai/run/@", "/workers-ai/@")
"""What precedes the model in a path: of the API, of the AI gateway."""

_MAX_TOOLS = 256


class Ran(msgspec.Struct, gc=False):
    """A result, or one event of a stream; the vectors and pictures are passed over."""

    response: Any = None
    tool_calls: list[Any] | None = None
    usage: Any = None
    data: msgspec.Raw = NOT_THERE
    image: msgspec.Raw = NOT_THERE
    choices: msgspec.Raw = NOT_THERE
    errors: list[Any] | None = None


class Wrapped(msgspec.Struct, gc=False):
    """A whole reply."""

    result: msgspec.Raw = NOT_THERE
    errors: list[Any] | None = None


_RAN = Shape(Ran)
_WRAPPED = Shape(Wrapped)


class WorkersReader(ChatReader):
    """Reads one run."""

    wire_format = "cloudflare_run"

    def read_request(self) -> None:
        super().read_request()
        path = self.request.path.partition("?")[0]
        for mark in MARKS:
            _, found, rest = path.partition(mark)
            if found:
                self.request_model = text("@" + unquote(rest))
        if b'"messages"' not in (self.request.body or b""):
            self.operation_name = "text_completion"
            if self.fingerprints is not None and self.request.body:
                self.prompt = prompts.text_prompt(mapping(loads(self.request.body)), self.fingerprints)

    def document(self, data: bytes) -> None:
        found = _WRAPPED.read(data)
        if found is None:
            self._usage = tail_object(data, "usage")
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        if found.errors:
            self.read_error({"errors": found.errors})
        ran = _RAN.read(bytes(found.result)) if found.result else None
        if ran is None:
            return
        if ran.choices:
            self.operation_name = "chat"
            super().document(bytes(found.result))
            return
        if ran.data:
            self.operation_name = "embeddings"
        elif ran.image:
            self.operation_name = "image_generation"
        self._ran(ran)

    def event(self, name: bytes, data: bytes) -> None:
        ran = _RAN.read(data) if data[:1] == b"{" else None
        if ran is None or ran.choices or ran.errors:
            super().event(name, data)
        else:
            self._ran(ran)

    def unread(self) -> None:
        """A picture or a sound is what some models make."""

    def _ran(self, ran: Ran) -> None:
        if isinstance(ran.response, str) and ran.response and self.said is not None:
            self.said.text(ran.response)
        if isinstance(ran.usage, dict) and ran.usage:
            self._usage = ran.usage
        for call in map(mapping, ran.tool_calls or ()):
            name = text(call.get("name"))
            if name is not None and len(self.tools) < _MAX_TOOLS:
                self.tools.append(name)
                if self.said is not None:
                    self.said.call(len(self.tools), name, encoded(call.get("arguments") or {}))
