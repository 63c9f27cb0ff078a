"""OpenAI's assistant runs: started, streamed, continued with tool outputs, or looked at until they are over.

The counts come once the run is over; a run that is looked at before states none. Each look is an exchange of its own,
and the run's id is the same in all of them: platform.openai.com/docs/api-reference/runs.
"""

from typing import Any

import msgspec

from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Shape, loads, mapping, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import read_openai

_MAX_TOOLS = 256


class Run(msgspec.Struct, gc=False):
    """A run; in a stream, also whatever else its events hold."""

    id: str | None = None
    object: str | None = None
    model: str | None = None
    status: str | None = None
    usage: Any = None
    required_action: Any = None
    last_error: Any = None
    delta: Any = None


_SHAPE = Shape(Run)


class AssistantsRunReader(Reader):
    """Reads one run."""

    wire_format = "openai_assistants_run"
    operation_name = "assistants_run"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self._run(found)

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        found = _SHAPE.read(data)
        if name == b"error":
            self.read_error({"error": loads(data)})
        elif found is not None and found.object == "thread.run":
            self._run(found)
        elif found is not None and found.object == "thread.message.delta" and self.said is not None:
            content = mapping(found.delta).get("content")
            for part in map(mapping, content if isinstance(content, list) else []):
                for piece in conversation.texts([mapping(part.get("text")).get("value")]):
                    self.said.text(piece)

    def _run(self, found: Run) -> None:
        self.response_id = found.id or self.response_id
        self.response_model = found.model or self.response_model
        if found.status:
            self.finish_reasons[0] = found.status
        if found.usage:
            usage = mapping(found.usage)
            if "prompt_token_details" in usage:
                # Runs spell it without the s.
                usage = {**usage, "prompt_tokens_details": usage["prompt_token_details"]}
            self.tally = read_openai(usage)
        if found.last_error:
            self.error = (None, text(mapping(found.last_error).get("code")))
        calls = mapping(mapping(found.required_action).get("submit_tool_outputs")).get("tool_calls")
        if isinstance(calls, list):
            # Each mention of the run has them all.
            self.tools = []
            for call in calls[:_MAX_TOOLS]:
                self._call(mapping(mapping(call).get("function")))

    def _call(self, function: dict[str, Any]) -> None:
        name = text(function.get("name"))
        if name is None:
            return
        self.tools.append(name)
        if self.said is not None and not self.asked_for_stream:
            arguments = function.get("arguments")
            self.said.call(len(self.tools), name, arguments if isinstance(arguments, str) else None)
