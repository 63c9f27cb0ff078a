"""Anthropic's legacy text completions: no usage in them at all; what they cost is settled by a statement."""

import msgspec

from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Shape, loads
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body


class Completion(msgspec.Struct):
    """A completion, or the next piece of a streamed one."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    completion: str | None = None
    stop_reason: str | None = None


_SHAPE = Shape(Completion)


class CompleteReader(Reader):
    """Reads one text completion."""

    wire_format = "anthropic_complete"
    operation_name = "text_completion"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        if self.fingerprints is not None:
            self.prompt = conversation.chat_prompt(asked, self.fingerprints)

    def document(self, data: bytes) -> None:
        self.event(b"", data)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            return
        if found.type == "error" or name == b"error":
            self.read_error(loads(data))
            return
        self.response_id = found.id or self.response_id
        self.response_model = found.model or self.response_model
        if found.completion and self.said is not None:
            self.said.text(found.completion)
        if found.stop_reason:
            self.finish_reasons[0] = found.stop_reason
            self.ended = True
