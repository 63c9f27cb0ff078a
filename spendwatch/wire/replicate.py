"""Replicate's predictions, started or looked at until they are done. Billed by the seconds they ran, not by tokens.

Each look is an exchange of its own with the same id. Language models state counts in `metrics`:
replicate.com/docs/reference/http.
"""

from typing import Any

import msgspec

from spendwatch import money
from spendwatch.wire import prompts
from spendwatch.wire.jsonread import Shape, count, loads, mapping, text
from spendwatch.wire.reader import Reader


class Prediction(msgspec.Struct, gc=False):
    """The members wanted of a prediction."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    error: Any = None
    metrics: Any = None
    output: Any = None


_SHAPE = Shape(Prediction)


class ReplicateReader(Reader):
    """Reads one exchange about a prediction."""

    wire_format = "replicate_prediction"
    operation_name = "replicate"

    def read_request(self) -> None:
        _, found, rest = self.request.path.partition("?")[0].partition("/models/")
        self.request_model = text(rest.removesuffix("/predictions")) if found else None
        if self.fingerprints is not None and self.request.body:
            self.prompt = prompts.text_prompt(mapping(loads(self.request.body)), self.fingerprints)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self.response_id = found.id
        self.response_model = found.model
        if found.status:
            self.finish_reasons[0] = found.status
        if found.error:
            self.error = (None, None)
        metrics = mapping(found.metrics)
        self.tally.input_tokens = count(metrics.get("input_token_count"))
        self.tally.output_tokens = count(metrics.get("output_token_count"))
        seconds = money.parse(metrics.get("predict_time"))
        if seconds is not None:
            self.attributes["predict_seconds"] = money.text(seconds)
        if self.said is not None:
            pieces = found.output if isinstance(found.output, list) else [found.output]
            self.said.text("".join([piece for piece in pieces if isinstance(piece, str)]))
