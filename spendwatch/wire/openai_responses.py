"""OpenAI's Responses API and its copies, plain and streamed.

The whole response comes once more inside response.completed, .incomplete or .failed, with the usage; nothing is added
up. A function call counts once its item is done: one that the stream's end cut short was never asked for.
"""

import re
from typing import Any, Literal

import msgspec

from spendwatch import money
from spendwatch.wire import conversation, sse
from spendwatch.wire.jsonread import Run, Shape, loads, mapping, tail_object, text
from spendwatch.wire.openai_chat import deployment
from spendwatch.wire.reader import Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import read_openai

_MAX_ITEMS = 256
_CALLS = ("function_call", "custom_tool_call")
_WISHED = "auto"
"""What the first events repeat of the request: the tier that served comes with the last one."""
_TIER = re.compile(rb'"service_tier"\s*:\s*"(\w+)"')
_OVER = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done")


class Item(msgspec.Struct, gc=False):
    """One item of the output."""

    type: str | None = None
    id: Any = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    content: list[Any] | None = None


class Response(msgspec.Struct, gc=False):
    """The response itself."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    incomplete_details: Any = None
    error: Any = None
    usage: Any = None
    output: list[Item] | None = None
    service_tier: str | None = None
    provider: Any = None
    cost: Any = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str | None = None
    delta: Any = None
    item: Item | None = None
    output_index: int | None = None
    response: Response | None = None
    error: Any = None


class TextDelta(msgspec.Struct, gc=False):
    """The common event of a stream."""

    type: Literal["response.output_text.delta"]
    delta: str


_RESPONSE = Shape(Response)
_TEXT_DELTAS = Run(TextDelta)
_DELTA = b"event: response.output_text.delta\ndata: "
_EVENT = Shape(Event)
_SEVERAL = Run(Event)


class ResponsesReader(Reader):
    """Reads one response."""

    wire_format = "openai_responses"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""), "input")
        self.request_model = asked.model or deployment(self.request.path)
        self.asked_for_stream = asked.stream
        if self.fingerprints is not None:
            self.prompt = conversation.responses_prompt(asked, self.fingerprints)
        self._items: set[object] = set()
        self._spelled: set[object] = set()
        """Places of the items whose arguments came in pieces."""
        self._server_tools: list[str] = []

    def document(self, data: bytes) -> None:
        response = _RESPONSE.read(data)
        if response is None:
            self._from_tail(data)
            if self.note is None:
                self.note = f"reply is no JSON object ({len(data)} bytes)"
            return
        self._response(response)

    def block(self, block: bytes) -> None:
        found = sse.run(block, _DELTA)
        deltas = _TEXT_DELTAS.read(found[1]) if found is not None else None
        if found is None or deltas is None:
            super().block(block)
            return
        before, _, after = found
        if before:
            super().block(before)
        if self.said is not None:
            self.said.text("".join([delta.delta for delta in deltas]))
        if after:
            super().block(after)

    def events(self, events: list[sse.Event]) -> None:
        several = _SEVERAL.read([data for _, data in events])
        if several is None:
            super().events(events)
        else:
            for (name, data), event in zip(events, several, strict=True):
                self._event(event, name, data)

    def event(self, name: bytes, data: bytes) -> None:
        event = _EVENT.read(data)
        if event is None:
            self._from_tail(data)
        else:
            self._event(event, name, data)

    def _event(self, event: Event, name: bytes, data: bytes) -> None:
        kind = event.type or name.decode("utf-8", "replace")
        if kind == "response.output_text.delta":
            if self.said is not None and isinstance(event.delta, str):
                self.said.text(event.delta)
        elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            if self.said is not None and isinstance(event.delta, str):
                if len(self._spelled) < _MAX_ITEMS:
                    self._spelled.add(event.output_index)
                self.said.call(event.output_index, None, event.delta)
        elif kind == "response.output_item.done":
            if event.item is not None:
                self._item(event.output_index, event.item)
        elif kind == "error" or event.error:
            self.read_error(loads(data))
        elif event.response is not None:
            self.ended = self.ended or kind in _OVER
            self._response(event.response, streamed=True, over=kind in _OVER)

    def closing(self) -> None:
        searches = self._server_tools.count("web_search_call")
        if searches:
            self.attributes["web_searches"] = str(searches)
        if self._server_tools:
            self.attributes["server_tools"] = ",".join(self._server_tools)

    def _from_tail(self, data: bytes) -> None:
        """Take what still stands at the end of a response that broke off or lacks its middle."""
        usage = tail_object(data, "usage")
        if usage is not None:
            self.tally = read_openai(mapping(usage))
            tiers = _TIER.findall(data)
            self.service_tier = tiers[-1].decode() if tiers else self.service_tier

    def _response(self, response: Response, *, streamed: bool = False, over: bool = True) -> None:
        self.response_id = response.id or self.response_id
        self.response_model = response.model or self.response_model
        self.serving_provider = text(response.provider) or self.serving_provider
        if over or response.service_tier != _WISHED:
            self.service_tier = response.service_tier or self.service_tier
        if response.cost is not None:
            self.cost = money.parse_cost(response.cost)
        if response.usage:
            self.tally = read_openai(mapping(response.usage))
        if response.error:
            self.read_error({"error": response.error})
        if not over:
            return
        reason = text(mapping(response.incomplete_details).get("reason")) or response.status
        if reason:
            self.finish_reasons[0] = reason
        # Of a stream, what its own events have not told already.
        for place, item in enumerate(response.output or ()):
            self._item(place, item, spoken=not streamed)

    def _item(self, place: int | None, item: Item, *, spoken: bool = False) -> None:
        """Take one finished item. spoken: its text has not been read in pieces before."""
        key = place if place is not None else item.id
        if not isinstance(key, int | str) or key in self._items or len(self._items) >= _MAX_ITEMS:
            return
        self._items.add(key)
        kind = item.type or ""
        if kind in _CALLS:
            if item.name:
                self.tools.append(item.name)
            if self.said is not None:
                given = item.arguments if item.arguments is not None else item.input
                whole = isinstance(given, str) and key not in self._spelled
                self.said.call(key, item.name, given if whole else None)
        elif kind.endswith("_call"):
            self._server_tools.append(kind)
        elif spoken and kind == "message" and self.said is not None:
            for part in conversation.texts(item.content or []):
                self.said.text(part)
