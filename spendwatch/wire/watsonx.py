"""IBM watsonx.ai's text generation, plain and streamed, its embeddings and ranking. Its chat has OpenAI's form, but
for the model's name, which stands in `model_id` on both sides.

A stream states the input once, at its beginning, and the output as a running total; it has no event that says that it
is over: cloud.ibm.com/apidocs/watsonx-ai.
"""

from typing import Any

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.jsonread import Shape, count, loads, mapping, text
from spendwatch.wire.openai_chat import ChatReader
from spendwatch.wire.reader import Reader
from spendwatch.wire.reply import Reply

_UNFINISHED = "not_finished"


class Generated(msgspec.Struct, gc=False):
    """A whole reply, or one event of a streamed one."""

    model_id: str | None = None
    results: list[Any] | None = None
    errors: list[Any] | None = None
    input_token_count: Any = None


_SHAPE = Shape(Generated)


class WatsonxReader(Reader):
    """Reads one text generation."""

    wire_format = "watsonx_generate"
    operation_name = "text_completion"

    def read_request(self) -> None:
        path = self.request.path.partition("?")[0]
        self.asked_for_stream = path.endswith("_stream")
        self._whole = False
        if self.fingerprints is not None and self.request.body:
            self.prompt = prompts.text_prompt(mapping(loads(self.request.body)), self.fingerprints)

    def document(self, data: bytes) -> None:
        self.event(b"", data)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            return
        self.response_model = found.model_id or self.response_model
        if found.errors or name == b"error":
            self.read_error(loads(data))
        if found.input_token_count is not None:
            # Embeddings and rankings count once, at the top.
            self.tally.input_tokens = count(found.input_token_count)
        for one in map(mapping, (found.results or ())[:1]):
            reason = text(one.get("stop_reason"))
            if reason is not None and reason != _UNFINISHED:
                self.finish_reasons[0] = reason
            self.tally.input_tokens = _larger(self.tally.input_tokens, count(one.get("input_token_count")))
            self.tally.output_tokens = _larger(self.tally.output_tokens, count(one.get("generated_token_count")))
            said = one.get("generated_text")
            if isinstance(said, str) and self.said is not None:
                self.said.text(said)

    def finish(self, complete: bool) -> Reply:
        self._whole = complete
        return super().finish(complete)

    def _reply(self, ended: bool | None) -> Reply:  # noqa: ARG002 - nothing tells it
        return super()._reply(None if self._whole else False)


class WatsonxChatReader(ChatReader):
    """Reads one chat."""

    def closing(self) -> None:
        super().closing()
        if self.response_model is None and self.request_model is None and self.request.body:
            asked = _SHAPE.read(self.request.body)
            self.request_model = asked.model_id if asked is not None else None


class WatsonxEmbedReader(WatsonxReader):
    """Reads one set of embeddings."""

    wire_format = "watsonx_embeddings"
    operation_name = "embeddings"


class WatsonxRerankReader(WatsonxReader):
    """Reads one ranking."""

    wire_format = "watsonx_rerank"
    operation_name = "rerank"


def _larger(sofar: int | None, more: int | None) -> int | None:
    return more if sofar is None else max(sofar, more or 0)
