"""llama.cpp's own completion and infill, plain and streamed; its OpenAI-shaped endpoints are read as such.

Every event of a stream counts what was predicted so far, and the last one says `stop`. `tokens_evaluated` is the whole
prompt, what came from the cache included (`timings.cache_n`): github.com/ggml-org/llama.cpp, tools/server.
"""

from typing import Any

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.jsonread import Shape, count, loads, mapping, tail_object, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.usage import first_count, read_timings


class Completed(msgspec.Struct, gc=False):
    """A whole reply, or one event of a streamed one."""

    content: str | None = None
    model: str | None = None
    stop: bool | None = None
    stop_type: str | None = None
    tokens_predicted: Any = None
    tokens_evaluated: Any = None
    timings: Any = None
    error: Any = None


_SHAPE = Shape(Completed)


class LlamaCompletionReader(Reader):
    """Reads one text completion."""

    wire_format = "llamacpp_completion"
    operation_name = "text_completion"

    def read_request(self) -> None:
        body = mapping(loads(self.request.body)) if self.request.body else {}
        self.request_model = text(body.get("model"))
        self.asked_for_stream = body.get("stream") is True
        if self.fingerprints is not None:
            self.prompt = prompts.text_prompt(body, self.fingerprints)

    def document(self, data: bytes) -> None:
        if data[:1] == b"[":
            # Several prompts: one completion each.
            for place, one in enumerate(map(mapping, loads(data) or ())):
                self._add(place, one)
            return
        found = _SHAPE.read(data)
        if found is None:
            self.tally = read_timings(mapping(tail_object(data, "timings")))
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self._take(found)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is not None:
            if found.error or name == b"error":
                self.read_error({"error": found.error or loads(data)})
            self._take(found)

    def _take(self, found: Completed) -> None:
        self.response_model = found.model or self.response_model
        if found.error:
            self.read_error({"error": found.error})
        if found.content and self.said is not None:
            self.said.text(found.content)
        if found.stop:
            self.ended = True
            if found.stop_type and found.stop_type != "none":
                self.finish_reasons[0] = found.stop_type
            self.tally = read_timings(mapping(found.timings))
            self.tally.input_tokens = first_count(found.tokens_evaluated, self.tally.input_tokens)
            self.tally.output_tokens = first_count(found.tokens_predicted, self.tally.output_tokens)

    def _add(self, place: int, one: dict[str, Any]) -> None:
        tally = self.tally
        tally.input_tokens = _plus(tally.input_tokens, count(one.get("tokens_evaluated")))
        tally.output_tokens = _plus(tally.output_tokens, count(one.get("tokens_predicted")))
        reason = text(one.get("stop_type"))
        if reason is not None and place < 128:
            self.finish_reasons[place] = reason
        self.response_model = text(one.get("model")) or self.response_model


def _plus(sofar: int | None, more: int | None) -> int | None:
    return sofar if more is None else (sofar or 0) + more
