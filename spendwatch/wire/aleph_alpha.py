"""Aleph Alpha's completions. `model_version` is a date and names no model; the counts are kept as attributes."""

from typing import Any

import msgspec

from spendwatch.fingerprint import Message
from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Shape, count, loads, mapping
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body


class Completed(msgspec.Struct, gc=False):
    """The members wanted of a reply."""

    completions: list[Any] | None = None
    num_tokens_prompt_total: Any = None
    num_tokens_generated: Any = None


_SHAPE = Shape(Completed)


class AlephAlphaReader(Reader):
    """Reads one text completion."""

    wire_format = "aleph_alpha_complete"
    operation_name = "text_completion"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        if self.fingerprints is not None and "prompt" in asked.parts:
            prompt = loads(bytes(asked.parts["prompt"]))
            parts = prompt if isinstance(prompt, list) else [prompt]
            said = conversation.texts([mapping(one).get("data", one) for one in parts])
            self.prompt = self.fingerprints.prompt(last=[Message(role="user", texts=said)], messages=1)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        for name, value in (
            ("prompt_tokens", found.num_tokens_prompt_total),
            ("generated_tokens", found.num_tokens_generated),
        ):
            number = count(value)
            if number is not None:
                self.attributes[name] = str(number)
        said = mapping(found.completions[0]).get("completion") if found.completions else None
        if isinstance(said, str) and self.said is not None:
            self.said.text(said)
