"""What every reader has in common: finding out how a reply is framed, and gathering the facts it states.

A reply is one JSON document, a stream of server-sent events, or bytes of another kind (audio, a text, a proxy's HTML
page). Which one is seen from its first bytes and only then from its content type: gateways mislabel both ways. A
wire format adds `document` and `event`; everything they find out is an attribute here until `finish` puts it together.

Memory: a document is kept until its end (the app holds it anyway), up to MAX_DOCUMENT; of a stream never more than one
unfinished event. Never here: the names of any provider's JSON members, except the error object that all share.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from spendwatch import money
from spendwatch.calls import NOTHING, Fingerprint
from spendwatch.fingerprint import Fingerprinter, PromptPrint, ReplyPrint
from spendwatch.wire import providers, sse
from spendwatch.wire.jsonread import loads, mapping, text
from spendwatch.wire.reply import Reply, Request
from spendwatch.wire.sse import Clipped, Event, LineSplitter, Splitter
from spendwatch.wire.usage import Tally

MAX_DOCUMENT = 32 * 1024 * 1024
MAX_ERROR_EVENTS = 16
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_SSE_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_MEDIA = ("audio/", "image/", "video/")
"""Raw samples may begin with any byte. Of the mislabelled replies that were seen, none was labelled as these."""
_STARTS = (*_SSE_STARTS[:-1], _BOM)


class Splitting(Protocol):
    """What cuts the bytes of a stream into events. held: bytes kept of what isn't whole yet."""

    @property
    def held(self) -> int: ...

    def feed(self, piece: bytes) -> list[Event]: ...

    def close(self) -> list[Event]: ...


class Framing(Enum):
    """How the bytes of a reply are cut up."""

    UNSEEN = "unseen"
    DOCUMENT = "document"
    EVENTS = "events"
    OTHER = "other"


class Reader:
    """Reads one exchange: `head` once, `feed` for each piece, `finish` once. Never raises, whatever the bytes are."""

    wire_format = ""
    operation_name = "chat"
    is_inference = True
    lines = False
    """Whether the format's replies are JSON objects, one a line, also when there is one only."""

    # What is found out, as long as nothing is. Values of the class, because most readers never change most of them.
    status = 0
    headers: Mapping[str, str] = NOTHING
    framing = Framing.UNSEEN
    asked_for_stream = False
    request_model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    serving_provider: str | None = None
    system_fingerprint: str | None = None
    cost: Decimal | None = None
    service_tier: str | None = None
    error: tuple[str | None, str | None] | None = None
    ended = False
    """Whether a stream's terminal event was seen."""
    array_stream = False
    """Whether the reply is a stream in the form of one JSON array."""
    note: str | None = None
    prompt: PromptPrint | None = None
    _leading = b""
    _splitter: Splitting | None = None
    _size = 0

    def __init__(
        self, request: Request, provider: str | None, fingerprints: Fingerprinter | None, *, tool_names: bool = True
    ) -> None:
        self.request = request
        self.provider = provider
        self.fingerprints = fingerprints
        self.tool_names = tool_names
        self.tally = Tally()
        self.finish_reasons: dict[int, str] = {}
        self.tools: list[str] = []
        self.attributes: dict[str, str] = {}
        self.said: ReplyPrint | None = fingerprints.reply() if fingerprints is not None else None
        self._parts: list[bytes] = []
        self._large: Clipped | None = None
        """What a document is kept in that is too large to be read whole."""
        self.read_request()

    # What a wire format adds.

    def read_request(self) -> None:
        """Take request_model, asked_for_stream and prompt from the request."""

    def document(self, data: bytes) -> None:
        """Read a reply that is one JSON document; called for a status below 400."""

    def event(self, name: bytes, data: bytes) -> None:
        """Read one event of a stream; the last one may be cut off in its middle."""

    def events(self, events: list[Event]) -> None:
        """Read some events, in order; a format overrides it that can decode many at once."""
        for name, data in events:
            self.event(name, data)

    def block(self, block: bytes) -> None:
        """Read server-sent events, whole ones, not cut yet; a format overrides it that knows its common one."""
        self.events(sse.cut(block))

    def closing(self) -> None:
        """Settle what only the end of the reply decides."""

    # What the hooks call.

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The reply's status and headers (names in lower case)."""
        self.status = status
        self.headers = headers

    def feed(self, data: bytes) -> None:
        """The next bytes of the reply's body, content-decoded, in any split."""
        self._size += len(data)
        if self._splitter is None and self.framing is Framing.UNSEEN:
            data = self._sniff(data)
            if not data:
                return
        if self._splitter is not None:
            self._stream(data)
        elif self.framing is Framing.DOCUMENT:
            self._gather(data)

    def finish(self, complete: bool) -> Reply:
        """What the exchange said. complete False: the app left early, or the connection broke."""
        if self.framing is Framing.UNSEEN and self._leading:
            self._decide(self._leading)
            rest, self._leading = self._leading, b""
            if self._splitter is not None:
                self._stream(rest)
        if self._splitter is not None:
            self.events(self._splitter.close())
        elif self.framing is Framing.DOCUMENT:
            self._finish_document(complete)
        self.closing()
        streamed = self._splitter is not None and (self.asked_for_stream or not self.lines)
        if streamed or self.array_stream:
            return self._reply(self.ended)
        return self._reply(None if complete else False)

    @property
    def held(self) -> int:
        """Bytes kept of what isn't whole yet in a stream."""
        return self._splitter.held if self._splitter is not None else 0

    # How it works.

    def _stream(self, data: bytes) -> None:
        splitter = self._splitter
        if isinstance(splitter, Splitter):
            block = splitter.block(data)
            if block:
                self.block(block)
        elif splitter is not None:
            self.events(splitter.feed(data))

    def _sniff(self, data: bytes) -> bytes:
        """Decide the framing once there is something to decide by; the bytes to go on with."""
        # White space before the JSON is a keep-alive (DeepSeek, OpenRouter), and nobody misses it.
        start = (self._leading + data).lstrip(_SPACE).removeprefix(_BOM).lstrip(_SPACE)
        if len(start) < 6 and (not start or any(s.startswith(start) for s in _STARTS)):
            # Nothing to decide by yet: "data" may still become "data:".
            self._leading = start
            return b""
        self._leading = b""
        self._decide(start)
        return start

    def _decide(self, start: bytes) -> None:
        kind = self.headers.get("content-type", "")
        if kind.startswith(_MEDIA):
            self.framing = Framing.OTHER
        elif start[:1] == b"{" and self.lines and self.status < 400:
            self.framing = Framing.EVENTS
            self._splitter = LineSplitter()
        elif start[:1] in (b"{", b"["):
            self.framing = Framing.DOCUMENT
        elif start.startswith(_SSE_STARTS) or "text/event-stream" in kind:
            self.framing = Framing.EVENTS
            self._splitter = Splitter()
        else:
            self.framing = Framing.OTHER

    def _gather(self, data: bytes) -> None:
        if self._size <= MAX_DOCUMENT:
            # No copies: the app holds these pieces, too.
            self._parts.append(data)
            return
        if self._large is None:
            self._large = Clipped(MAX_DOCUMENT)
        for part in self._parts:
            self._large.add(part)
        self._parts = []
        self._large.add(data)

    def _finish_document(self, complete: bool) -> None:
        parts, self._parts = self._parts, []
        clipped = self._large is not None and self._large.clipped
        if self._large is not None:
            data = self._large.take()
        else:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
        if self.status >= 400:
            self.read_error(loads(data))
            return
        if clipped:
            self.note = f"reply of {self._size} bytes is too large to be read whole"
        elif not complete:
            self.note = "reply broke off"
        self.document(data)

    def read_error(self, value: Any) -> bool:
        """Take type and code from an error reply or event; whether there is an error in it.

        Shapes: {"error": {type, code, ...}}, {"error": "text", "code": ...}, {"object": "error", type, code},
        {"error": {code, status}}, also in an array (Google), {"errors": [{code, ...}]} (Cloudflare),
        {"error_code": ...} (Databricks), and FastAPI's {"detail": ...}.
        """
        if isinstance(value, list) and value:
            value = value[0]
        body = mapping(value)
        inner = body.get("error")
        several = body.get("errors")
        if not inner and isinstance(several, list) and several:
            inner = several[0]
        if inner:
            found = inner if isinstance(inner, dict) else body
        elif "error" in (body.get("object"), body.get("type")) or body.get("error_code") or self.status >= 400:
            found = body
        else:
            return False
        kind = text(found.get("type"))
        if kind is None or kind == "error":
            kind = text(found.get("status"))
        code = found.get("code", found.get("error_code"))
        self.error = (
            kind,
            str(code) if isinstance(code, int | str) and not isinstance(code, bool) and code != "" else None,
        )
        return True

    def tool_called(self, name: str) -> None:
        """Note that the reply asks for one of the app's tools."""
        self.tools.append(name)

    def _reply(self, ended: bool | None) -> Reply:
        tally = self.tally
        is_error = self.status >= 400 or self.error is not None
        if self.note is None and not is_error and self.status and self.framing is Framing.OTHER and self._size:
            self.unread()
        header_cost = self.headers.get("x-litellm-response-cost")
        cost = self.cost if self.cost is not None else tally.cost
        if cost is None and header_cost:
            cost = money.parse_cost(header_cost)
        response_id = self.response_id or text(self.headers.get("x-generation-id"))
        if tally.cache_write_5m_input_tokens is not None:
            self.attributes["cache_write_5m_input_tokens"] = str(tally.cache_write_5m_input_tokens)
        kind, code = self.error or (None, None)
        return Reply(
            is_inference=self.is_inference,
            provider_name=self.provider or self._name_provider(response_id),
            serving_provider=self.serving_provider,
            operation_name=self.operation_name,
            request_model=self.request_model,
            response_model=self.response_model,
            response_id=response_id,
            usage=tally.usage(),
            reported_cost=cost,
            upstream_cost=tally.upstream_cost,
            is_byok=tally.is_byok,
            service_tier=self.service_tier or tally.service_tier,
            finish_reasons=self._reasons(),
            tool_calls=tuple(self.tools) if self.tool_names else (),
            streamed=(self._splitter is not None and not self.lines) or self.asked_for_stream,
            is_error=is_error,
            error_type=kind,
            error_code=code,
            complete=ended,
            fingerprint=self._fingerprint(),
            wire_format=self.wire_format,
            attributes=MappingProxyType(self.attributes) if self.attributes else NOTHING,
            note=self.note,
        )

    def _reasons(self) -> tuple[str, ...]:
        found = self.finish_reasons
        return tuple(found.values()) if len(found) < 2 else tuple([reason for _, reason in sorted(found.items())])

    def unread(self) -> None:
        """Called for a good reply that is neither JSON nor events; a format whose replies are media overrides it."""
        self.note = f"reply is neither JSON nor an event stream ({self._size} bytes)"

    def _name_provider(self, response_id: str | None) -> str:
        if self.serving_provider and self.tally.is_byok is not None:
            return providers.OPENROUTER
        return providers.from_reply(
            self.request.host, self.request.port, self.headers, response_id, self.system_fingerprint
        )

    def _fingerprint(self) -> Fingerprint | None:
        if self.fingerprints is None:
            return None
        return self.fingerprints.combine(self.prompt, self.said, tool_names=self.tool_names)


class WireFormat:
    """A wire format as one request speaks it: its name, and the provider as far as the request tells it."""

    __slots__ = ("_reader", "name", "provider")

    def __init__(self, reader: type[Reader], provider: str | None) -> None:
        self._reader = reader
        self.name = reader.wire_format
        self.provider = provider
        """None: the reply will tell."""

    def reader(self, request: Request, fingerprints: Fingerprinter | None, *, tool_names: bool = True) -> Reader:
        """A reader for one exchange. fingerprints None: none are made."""
        return self._reader(request, self.provider, fingerprints, tool_names=tool_names)
