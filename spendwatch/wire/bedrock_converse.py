"""Amazon Bedrock's Converse and ConverseStream; Nova's own body is of the same shape.

`inputTokens` leaves out what was read from and written to the cache, so all of it is added up. The model stands in the
path alone. A stream is made of AWS event-stream messages; its usage comes in `metadata`, after `messageStop`, which
already ends the reply. Errors are named by a response header, inside a stream by an exception message:
docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.
"""

from typing import Any
from urllib.parse import unquote

import msgspec

from spendwatch.wire import prompts
from spendwatch.wire.event_stream import EXCEPTION, MessageSplitter
from spendwatch.wire.jsonread import Shape, count, encoded, mapping, tail_object, text
from spendwatch.wire.reader import Framing, Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import Tally, first_count, read_cost

_MAX_TOOLS = 256


class Conversed(msgspec.Struct, gc=False):
    """The members wanted of a whole reply, and of a stream's events."""

    output: Any = None
    stopReason: str | None = None  # noqa: N815 - the wire's name
    usage: Any = None
    serviceTier: Any = None  # noqa: N815
    start: Any = None
    delta: Any = None
    contentBlockIndex: int | None = None  # noqa: N815


_SHAPE = Shape(Conversed)


class AmazonReader(Reader):
    """What all Bedrock replies share: the model in the path, event-stream framing, errors named in a header."""

    def read_request(self) -> None:
        self.request_model = model_in_path(self.request.path)
        self.asked_for_stream = "stream" in self.request.path[self.request.path.rfind("/") :]

    def _decide(self, start: bytes) -> None:
        if start[:1] == b"\0":
            self.framing = Framing.EVENTS
            self._splitter = MessageSplitter()
        else:
            super()._decide(start)

    def event(self, name: bytes, data: bytes) -> None:
        if name.startswith(EXCEPTION):
            self.error = (name[len(EXCEPTION) :].decode("utf-8", "replace"), None)
        else:
            self.message(name, data)

    def message(self, name: bytes, data: bytes) -> None:
        """Read one event that is no exception."""

    def read_error(self, value: Any) -> bool:
        """Where a proxy took the header away, the body may still name the exception: namespace#Name."""
        found = super().read_error(value)
        kind = text(mapping(value).get("__type"))
        if found and kind is not None:
            self.error = (kind.rpartition("#")[2], None)
        return found

    def closing(self) -> None:
        kind = self.headers.get("x-amzn-errortype")
        if self.status >= 400 and kind:
            self.error = (text(kind.partition(":")[0]), None)
        self.service_tier = self.service_tier or text(self.headers.get("x-amzn-bedrock-service-tier"))


class ConverseReader(AmazonReader):
    """Reads one conversation's turn."""

    wire_format = "bedrock_converse"

    def read_request(self) -> None:
        super().read_request()
        self._server_tools: list[str] = []
        if self.fingerprints is not None:
            asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
            self.prompt = prompts.converse_prompt(asked, self.fingerprints)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            usage = tail_object(data, "usage")
            if usage is not None:
                self.tally = read_converse(mapping(usage))
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self.take(found)

    def message(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is not None:
            self.take(found)
        elif name == b"metadata":
            # A guardrail's trace may be longer than what is kept of a message.
            usage = tail_object(data, "usage")
            if usage is not None:
                self.tally = read_converse(mapping(usage))
        if name in (b"messageStop", b"metadata"):
            self.ended = True

    def closing(self) -> None:
        super().closing()
        if "openai." in (self.request_model or ""):
            _net(self.tally)
        if self._server_tools:
            self.attributes["server_tools"] = ",".join(self._server_tools)

    def take(self, found: Conversed) -> None:
        """Take what a reply, or one of its events, says."""
        if found.stopReason:
            self.finish_reasons[0] = found.stopReason
        if found.usage:
            self.tally = read_converse(mapping(found.usage))
        tier = text(mapping(found.serviceTier).get("type"))
        self.service_tier = tier or self.service_tier
        if found.output is not None:
            content = mapping(mapping(found.output).get("message")).get("content")
            for place, block in enumerate(content if isinstance(content, list) else []):
                self._block(place, mapping(block))
        if found.start is not None:
            self._block(found.contentBlockIndex, mapping(found.start))
        if found.delta is not None and self.said is not None:
            delta = mapping(found.delta)
            if isinstance(delta.get("text"), str):
                self.said.text(delta["text"])
            arguments = mapping(delta.get("toolUse")).get("input")
            if isinstance(arguments, str) and arguments:
                self.said.call(found.contentBlockIndex, None, arguments)

    def _block(self, place: int | None, block: dict[str, Any]) -> None:
        said = block.get("text")
        if isinstance(said, str) and self.said is not None:
            self.said.text(said)
        use = mapping(block.get("toolUse"))
        name = text(use.get("name"))
        if name is None:
            return
        server = use.get("type") == "server_tool_use"
        names = self._server_tools if server else self.tools
        if len(names) < _MAX_TOOLS:
            names.append(name)
        if not server and self.said is not None:
            given = use.get("input")
            self.said.call(place, name, encoded(given) if given is not None else None)


def read_converse(usage: dict[str, Any]) -> Tally:
    """A Converse usage object, or Nova's, whose names differ."""
    tally = add_cached(
        count(usage.get("inputTokens")),
        first_count(usage.get("cacheReadInputTokens"), usage.get("cacheReadInputTokenCount")),
        first_count(usage.get("cacheWriteInputTokens"), usage.get("cacheWriteInputTokenCount")),
    )
    tally.output_tokens = count(usage.get("outputTokens"))
    tally.total_tokens = count(usage.get("totalTokens"))
    details = usage.get("cacheDetails")
    for one in map(mapping, details if isinstance(details, list) else []):
        if one.get("ttl") == "5m":
            tally.cache_write_5m_input_tokens = count(one.get("inputTokens"))
        elif one.get("ttl") == "1h":
            tally.cache_write_1h_input_tokens = count(one.get("inputTokens"))
    read_cost(usage, tally)
    return tally


def _net(tally: Tally) -> None:
    """OpenAI's models at Bedrock may state the input with what was cached in it, against the documentation.

    Measured: github.com/earendil-works/pi/issues/8752, github.com/maximhq/bifrost/pull/6942. Its total counts the
    cached tokens twice as well, so it can't tell; input of at least what was cached does.
    """
    cached = (tally.cache_read_input_tokens or 0) + (tally.cache_write_input_tokens or 0)
    given = (tally.input_tokens or 0) - cached
    if cached and given >= cached:
        tally.input_tokens = given


def add_cached(fresh: int | None, read: int | None, written: int | None) -> Tally:
    """The input of which Amazon states the three parts: fresh, read from the cache, written to it."""
    tally = Tally(cache_read_input_tokens=read, cache_write_input_tokens=written)
    if fresh is not None or read or written:
        tally.input_tokens = (fresh or 0) + (read or 0) + (written or 0)
    return tally


def model_in_path(path: str) -> str | None:
    """The model id, inference profile or ARN of .../model/<id>/converse."""
    _, found, rest = path.partition("?")[0].partition("/model/")
    return text(unquote(rest.rpartition("/")[0])) if found else None


def read_invocation(value: object) -> Tally:
    """The `amazon-bedrock-invocationMetrics` of a stream's last chunk."""
    metrics = mapping(value)
    tally = add_cached(
        count(metrics.get("inputTokenCount")),
        count(metrics.get("cacheReadInputTokenCount")),
        count(metrics.get("cacheWriteInputTokenCount")),
    )
    tally.output_tokens = count(metrics.get("outputTokenCount"))
    return tally
