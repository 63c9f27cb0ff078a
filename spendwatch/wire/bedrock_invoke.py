"""Amazon Bedrock's InvokeModel and its stream: each vendor's own body behind one address.

The vendor is found by the body's shape, never by the model's name: an ARN tells no vendor. Anthropic's, OpenAI's (also
AI21's and Mistral's newer models) and Nova's bodies are read by the readers of those formats; Titan, Llama, Cohere,
older Mistral and AI21, embeddings, images and reranking here. Counts that a body lacks are taken from the response
headers, in a stream from the invocation metrics of the last chunk:
docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html.
"""

import base64
import binascii
import re
from typing import Any

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.anthropic_messages import MessagesReader
from spendwatch.wire.bedrock_choices import MAX_CHOICES, ChoicesReader
from spendwatch.wire.bedrock_converse import (
    AmazonReader,
    ConverseReader,
    add_cached,
    read_invocation,
)
from spendwatch.wire.event_stream import CLIPPED
from spendwatch.wire.jsonread import NOT_THERE, Shape, count, loads, mapping, tail_object
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import LARGE, read_body
from spendwatch.wire.usage import Tally

_METRICS = "amazon-bedrock-invocationMetrics"
_ENDS = 24 * 1024
_PADDING = re.compile(rb'"\s*,\s*"p"\s*:')
_BLOCK_EVENTS = (
    "messageStart",
    "contentBlockStart",
    "contentBlockDelta",
    "messageStop",
    "metadata",
)
_OWNED = (
    "response_model", "response_id", "tally", "finish_reasons", "tools", "error", "service_tier", "system_fingerprint",
)  # fmt: skip


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream: a piece of the vendor's body, in base 64."""

    bytes: str = ""


class Vendor(msgspec.Struct, gc=False):
    """The members wanted of a body in one of the smaller shapes, whole or a piece of it."""

    type: str | None = None
    choices: Any = None
    output: Any = None
    id: str | int | None = None
    response_id: str | None = None
    message: Any = None
    results: Any = None
    outputText: str | None = None  # noqa: N815 - the wire's name
    completionReason: str | None = None  # noqa: N815
    inputTextTokenCount: Any = None  # noqa: N815
    totalOutputTextTokenCount: Any = None  # noqa: N815
    generation: str | None = None
    prompt_token_count: Any = None
    generation_token_count: Any = None
    generations: Any = None
    completion: str | None = None
    completions: Any = None
    outputs: Any = None
    text: str | None = None
    stop_reason: str | None = None
    finish_reason: Any = None
    embedding: msgspec.Raw = NOT_THERE
    embeddings: msgspec.Raw = NOT_THERE
    embeddingsByType: msgspec.Raw = NOT_THERE  # noqa: N815
    images: msgspec.Raw = NOT_THERE


class Nova(msgspec.Struct, gc=False):
    """One event of Nova's stream, under its name."""

    messageStart: msgspec.Raw = NOT_THERE  # noqa: N815
    contentBlockStart: msgspec.Raw = NOT_THERE  # noqa: N815
    contentBlockDelta: msgspec.Raw = NOT_THERE  # noqa: N815
    messageStop: msgspec.Raw = NOT_THERE  # noqa: N815
    metadata: msgspec.Raw = NOT_THERE


_NOVA = Shape(Nova)
_CHUNK = Shape(Chunk)
_VENDOR = Shape(Vendor)


class InvokeReader(AmazonReader):
    """Reads one invocation."""

    wire_format = "bedrock_invoke"

    def read_request(self) -> None:
        super().read_request()
        self._inner: Reader | None = None
        self._metered: Tally | None = None
        model = self.request_model or ""
        if "embed" in model:
            self.operation_name = "embeddings"
        elif "rerank" in model:
            self.operation_name = "rerank"
        if self.fingerprints is not None and self.operation_name == "chat":
            asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
            self.prompt = prompts.converse_prompt(asked, self.fingerprints)
            body = self.request.body
            if self.prompt is None and body and len(body) <= LARGE:
                given = mapping(loads(body))
                if "message" in given:
                    self.prompt = prompts.cohere_prompt(given, self.fingerprints)
                else:
                    self.prompt = prompts.text_prompt(given, self.fingerprints)

    def document(self, data: bytes) -> None:
        self._body(data, whole=True)

    def message(self, name: bytes, data: bytes) -> None:  # noqa: ARG002 - all are chunks
        if len(data) >= CLIPPED:
            self._cut(data)
            return
        chunk = _CHUNK.read(data)
        if chunk is not None and chunk.bytes:
            try:
                body = base64.b64decode(chunk.bytes)
            except (binascii.Error, ValueError):
                return
            self._body(body, whole=False)
            if _METRICS.encode() in body:
                self._metered = read_invocation(tail_object(body, _METRICS))
                self.ended = True

    def closing(self) -> None:
        super().closing()
        inner = self._inner
        if inner is not None:
            inner.closing()
            tier = self.service_tier
            for name in _OWNED:
                setattr(self, name, getattr(inner, name))
            self.error = self.error or inner.error
            self.service_tier = inner.service_tier or tier
            self.attributes.update(inner.attributes)
            self.ended = self.ended or inner.ended
        self._fill(self._metered or self._from_headers())

    def _fill(self, metered: Tally) -> None:
        """Take from Amazon's own counts what the body does not say."""
        tally = self.tally
        cached = (metered.cache_read_input_tokens or 0) + (metered.cache_write_input_tokens or 0)
        if tally.cache_read_input_tokens is None and tally.cache_write_input_tokens is None:
            fresh = tally.input_tokens is not None and tally.input_tokens + cached == metered.input_tokens
            if tally.input_tokens is None or fresh:
                tally.input_tokens = metered.input_tokens
                tally.cache_read_input_tokens = metered.cache_read_input_tokens
                tally.cache_write_input_tokens = metered.cache_write_input_tokens
        elif tally.input_tokens is None:
            tally.input_tokens = metered.input_tokens
        if tally.output_tokens is None:
            tally.output_tokens = metered.output_tokens

    def _from_headers(self) -> Tally:
        given = {}
        for name in ("input", "output", "cache-read-input", "cache-write-input"):
            value = self.headers.get(f"x-amzn-bedrock-{name}-token-count", "")
            given[name] = count(int(value)) if value.isascii() and value.isdecimal() and len(value) < 16 else None
        tally = add_cached(given["input"], given["cache-read-input"], given["cache-write-input"])
        tally.output_tokens = given["output"]
        return tally

    def _cut(self, data: bytes) -> None:
        """Read the metrics at the end of a chunk too large to keep."""
        padded = _PADDING.search(data, max(len(data) - 512, 0))
        end = padded.start() if padded else data.rfind(b'"')
        # Whole groups of four, counted from the end, so that they decode by themselves.
        encoded = data[max(end - _ENDS, 0) : end]
        try:
            tail = base64.b64decode(encoded)
        except (binascii.Error, ValueError):
            return
        metrics = tail_object(tail, _METRICS)
        if metrics is not None:
            self._metered = read_invocation(metrics)
            self.ended = True

    def _body(self, data: bytes, *, whole: bool) -> None:
        inner = self._inner
        if inner is None or isinstance(inner, ConverseReader):
            found = _VENDOR.read(data)
            if found is None:
                self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
                return
            if inner is None:
                inner = self._inner = self._vendor(found, data)
            if inner is None:
                self._take(found, whole=whole)
                return
        if isinstance(inner, ConverseReader) and not whole:
            nova = _NOVA.read(data)
            if nova is not None:
                _nova(inner, nova)
        elif whole:
            inner.document(data)
        else:
            inner.event(b"", data)

    def _vendor(self, found: Vendor, data: bytes) -> Reader | None:
        """The reader of the vendor whose body this is, None for one that is read here."""
        kind: type[Reader]
        if found.type is not None and found.completion is None:
            kind = MessagesReader
        elif isinstance(found.choices, list):
            kind = ChoicesReader
        elif isinstance(found.output, dict) or any(f'"{name}"'.encode() in data[:64] for name in _BLOCK_EVENTS):
            kind = ConverseReader
        else:
            return None
        # The prompt is printed already, and the reply has one print, whoever reads it.
        reader = kind(self.request, self.provider, None, tool_names=self.tool_names)
        reader.said = self.said
        return reader

    def _take(self, found: Vendor, *, whole: bool) -> None:
        tally = self.tally
        if whole:
            identity = found.response_id or (found.id if found.message is None else None)
            self.response_id = str(identity) if identity is not None else self.response_id
            self._operation(found)
        if found.inputTextTokenCount is not None:
            tally.input_tokens = count(found.inputTextTokenCount)
        if found.prompt_token_count is not None:
            tally.input_tokens = count(found.prompt_token_count)
        if found.generation_token_count is not None and (whole or found.stop_reason):
            # Running in a stream: an unfinished one's is no total.
            tally.output_tokens = count(found.generation_token_count)
        self._say(found.outputText or found.generation or found.completion or found.text)
        self._finish(0, found.completionReason or found.stop_reason or found.finish_reason)
        for place, one in enumerate(_objects(found.results)):
            if "outputText" in one:
                tally.output_tokens = (tally.output_tokens or 0) + (count(one.get("tokenCount")) or 0)
                self._piece(place, one.get("outputText"), one.get("completionReason"))
        for place, one in enumerate(_objects(found.generations)):
            # In a stream these are the generation's own reason and id, not the reply's.
            self._piece(place, one.get("text"), one.get("finish_reason") if whole else None)
        for place, one in enumerate(_objects(found.outputs)):
            self._piece(place, one.get("text"), one.get("stop_reason"))
        for place, one in enumerate(_objects(found.completions)):
            reason = one.get("finishReason")
            self._piece(place, mapping(one.get("data")).get("text"), mapping(reason).get("reason"))

    def _operation(self, found: Vendor) -> None:
        if any(map(_given, (found.embedding, found.embeddings, found.embeddingsByType))):
            self.operation_name = "embeddings"
        elif _given(found.images):
            self.operation_name = "image_generation"
        elif any("relevance_score" in one or "relevanceScore" in one for one in _objects(found.results)[:1]):
            self.operation_name = "rerank"
        elif found.response_id is None:
            self.operation_name = "text_completion"

    def _piece(self, place: int, said: Any, reason: Any) -> None:
        if place == 0:
            self._say(said)
        self._finish(place, reason)

    def _say(self, said: Any) -> None:
        if isinstance(said, str) and said and self.said is not None:
            self.said.text(said)

    def _finish(self, place: int, reason: Any) -> None:
        if isinstance(reason, str) and reason and place < MAX_CHOICES:
            self.finish_reasons[place] = reason


def _nova(reader: ConverseReader, body: Nova) -> None:
    """One chunk of Nova's stream: Converse's events, each under its name."""
    for name in _BLOCK_EVENTS:
        event = getattr(body, name)
        if event:
            reader.message(name.encode(), bytes(event))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [mapping(one) for one in value] if isinstance(value, list) else []


def _given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"", b"null")
