"""Replies that carry no conversation: a document with a model, perhaps an id, and a usage object.

What embeddings, reranking, images, speech, transcription and moderation have in common; each is a format of its own
with its operation. Media replies that are no JSON (an MP3) carry no usage at all: that is no fault.
"""

from typing import Any

import msgspec

from spendwatch import money
from spendwatch.wire.jsonread import Shape, loads, mapping, tail_object, text
from spendwatch.wire.openai_chat import deployment
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import read_openai


class Document(msgspec.Struct):
    """The members wanted of such a reply."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    usage: Any = None
    meta: Any = None
    provider: Any = None
    error: Any = None
    cost: Any = None
    service_tier: str | None = None


_SHAPE = Shape(Document)


class PlainReader(Reader):
    """Reads one such reply, or the events of a streamed one: the last usage wins."""

    total_is_input = False
    """Whether a usage that states only a total means the input by it."""

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model or deployment(self.request.path)
        self.asked_for_stream = asked.stream

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self._usage(tail_object(data, "usage"))
            if self.note is None and data[:1] != b"[":
                self.note = f"reply is no JSON object ({len(data)} bytes)"
            return
        self._take(found)

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        found = _SHAPE.read(data)
        if found is None:
            self._usage(tail_object(data, "usage"))
            self.ended = self.ended or name.endswith((b".done", b".completed"))
            return
        if name == b"error":
            self.read_error({"error": loads(data)})
        if found.type is not None and found.type.endswith((".done", ".completed")):
            self.ended = True
        # An event's id is that of a segment.
        found.id = None
        self._take(found)

    def _take(self, found: Document) -> None:
        self.response_id = found.id or self.response_id
        self.response_model = found.model or self.response_model
        self.serving_provider = text(found.provider) or self.serving_provider
        self.service_tier = found.service_tier or self.service_tier
        if found.error:
            self.read_error({"error": found.error})
        if found.cost is not None:
            self.cost = money.parse_cost(mapping(found.cost).get("usd") if isinstance(found.cost, dict) else found.cost)
        self._usage(found.usage)
        units = mapping(mapping(found.meta).get("billed_units"))
        if "search_units" in units:
            self.attributes["search_units"] = str(units["search_units"])

    def _usage(self, usage: Any) -> None:
        given = mapping(usage)
        if not given:
            return
        tally = read_openai(given)
        if self.total_is_input and tally.input_tokens is None and not tally.output_tokens:
            tally.input_tokens = tally.total_tokens
        self.tally = tally
        seconds = money.parse(given.get("seconds", given.get("prompt_audio_seconds")))
        if seconds is not None:
            self.attributes["audio_seconds"] = money.text(seconds)
        if "search_units" in given:
            self.attributes["search_units"] = str(given["search_units"])

    def unread(self) -> None:
        """An MP3 or a plain text is what was asked for."""
