"""One HTTP exchange with an LLM while it is watched: the reader is fed, and the call is recorded exactly once.

Whoever comes first finishes it: the end of the body, an error, close(), the garbage collector, the end of the
process. Invariant: an exchange in `live` has not been recorded, one that is not in it will not be again. In a forked
child the parent's exchanges are not live. Never here: a particular HTTP library.
"""

import time
from collections.abc import Mapping
from contextvars import ContextVar

from opentelemetry import context, trace

from spendwatch import recorder as recorders
from spendwatch.calls import CallStatus
from spendwatch.config import Settings
from spendwatch.hooks import httpspans, usage
from spendwatch.hooks.decode import Decoder, decoder
from spendwatch.hooks.guard import caught, shielded
from spendwatch.hooks.httpspans import HttpSpan
from spendwatch.recorder import Recorder
from spendwatch.wire import Reader, Request, recognise

live: set["Exchange"] = set()

inside: ContextVar[bool] = ContextVar("spendwatch_inside", default=False)
"""Whether an outer hook is already watching the request that is being sent here."""

HOLD = 24 * 1024
"""So many bytes of a body wait at most before they are read, PIECE counted for each of its pieces."""

PIECE = 48
"""Bytes that a piece and its place in a list take beside what is in it."""

_UNFINISHED = 8 * 1024
_LITTLE = 2 * 1024

_PLAIN_SUPPRESS_KEY = "suppress_instrumentation"


class Exchange:
    """The watching of one request and its reply."""

    __slots__ = (
        "_decoder",
        "_first_ns",
        "_held_bytes",
        "_host",
        "_key_hash",
        "_port",
        "_reader",
        "_recorder",
        "_room",
        "_status",
        "begun",
        "held",
        "http",
        "http_span",
        "question",
    )

    def __init__(self, recorder: Recorder, reader: Reader, request: Request, *, http_span: bool) -> None:
        self._recorder = recorder
        self._reader = reader
        self._host = request.host
        self._port = request.port or request.default_port
        self._key_hash = recorders.key_hash(request.headers)
        self._decoder: Decoder | None = None
        self._first_ns: int | None = None
        self.held: list[bytes] = []
        """Pieces of the body that the reader hasn't seen yet: it reads many at once for less. A stream may put some
        here itself instead of calling feed(): as much as pass_on() leaves room for."""
        self._held_bytes = 0
        self._room = HOLD
        self._status: int | None = None
        self.http_span = http_span
        self.question = usage.question(request, reader) if recorder.settings.request_stream_usage else None
        """The body to send instead of the app's, which asks for the stream's usage."""
        self.http: tuple[HttpSpan, dict[str, str]] | None = None
        """The HTTP span under the call's that the hook itself has to end, and the headers to add to the request."""
        self.begun = recorder.begin(on_app_traces=http_span)
        live.add(self)

    @property
    def settings(self) -> Settings:
        """What instrument() was told."""
        return self._recorder.settings

    @property
    def tracer_provider(self) -> trace.TracerProvider | None:
        """The provider that the app named for its traces."""
        return self._recorder.tracer_provider

    def begin_http(self, request: Request, *, secure: bool) -> None:
        """Begin the HTTP span of the request, if one is wanted."""
        if self.http_span:
            self.http = httpspans.begin(
                self.begun, self.tracer_provider, request, self._recorder.settings, secure=secure
            )

    # For every call: what may fail is shielded where it stands, which costs nothing, unlike shielded().

    def head(self, status: int, headers: Mapping[str, str], *, decoded: bool = False) -> None:
        """The reply's status and headers are here. decoded: what is fed is content-decoded already."""
        try:
            self._status = status
            if not decoded:
                self._decoder = decoder(headers.get("content-encoding"))
                if self._decoder is not None:
                    self._room = _LITTLE
            self._reader.head(status, headers)
        except Exception as exc:  # noqa: BLE001  # caught() is the place
            caught("reading a reply's head", exc)

    def feed(self, data: bytes) -> None:
        """The next bytes of the body, as they came over the wire."""
        if self._first_ns is None:
            if not data:
                return
            self._first_ns = time.perf_counter_ns()
        self.held.append(data)
        self._held_bytes += len(data) + PIECE
        if self._held_bytes >= self._room:
            self._read_held()

    def pass_on(self, data: bytes) -> int:
        """A piece of the body for which no room is left in `held`, the first one, too. How much room there is now."""
        if self._first_ns is None:
            if not data:
                return 0
            self._first_ns = time.perf_counter_ns()
            room = self._room - len(data)
            if room > 0:
                # The app waits for this one most: it is looked at later.
                self.held.append(data)
                return room
        self.held.append(data)
        return self._read_held()

    def _read_held(self) -> int:
        held, self._held_bytes = self.held, 0
        data = held[0] if len(held) == 1 else b"".join(held)
        held.clear()
        if data and self in live:
            self._read(data)
        # What is kept of a stream is bounded as a whole: beside a large event, or a decoder's window, less may wait.
        self._room = HOLD if self._decoder is None and self._reader.held < _UNFINISHED else _LITTLE
        return self._room

    def _read(self, data: bytes) -> None:
        try:
            if self._decoder is None:
                self._reader.feed(data)
            else:
                for piece in self._decoder.feed(data):
                    self._reader.feed(piece)
        except Exception as exc:  # noqa: BLE001  # as above
            caught("reading a reply", exc)

    def end(self, *, complete: bool, error: BaseException | None = None) -> None:
        """The exchange is over. complete: the body came to its end; error: what the transport raised."""
        if self not in live:
            return
        try:
            self._finish(complete, error)
        except Exception as exc:  # noqa: BLE001  # as above
            caught("recording a call", exc)

    def _finish(self, complete: bool, error: BaseException | None) -> None:
        ended = time.perf_counter_ns()
        if self.held:
            self._read_held()
        try:
            live.remove(self)
        except KeyError:
            return
        reply = self._reader.finish(complete)
        if not reply.is_inference:
            self._recorder.drop(self.begun)
            return
        if error is not None and isinstance(error, Exception):
            status, error_type = CallStatus.ERROR, type(error).__qualname__
        elif reply.is_error or (self._status is not None and self._status >= 400):
            status = CallStatus.ERROR
            error_type = recorders.named(reply.error_type, reply.error_code) or str(self._status)
        elif reply.complete is False or (not complete and reply.complete is not True):
            # Also what is no Exception: a cancelled task, an interrupt, a closed generator are the app's leaving.
            status, error_type = CallStatus.ABORTED, None
        else:
            status, error_type = CallStatus.OK, None
        note = self._decoder.note if self._decoder is not None else None
        self._recorder.record(
            self.begun,
            reply,
            host=self._host,
            port=self._port,
            key_hash=self._key_hash,
            ended_clock_ns=ended,
            first_chunk_clock_ns=self._first_ns,
            http_status=self._status,
            status=status,
            error_type=error_type,
            note=note,
        )

    @shielded("letting go of a call")
    def drop(self) -> None:
        """It was no call of an LLM after all (a redirect, a reply from a cache): nothing is recorded."""
        if self in live:
            live.discard(self)
            self._recorder.drop(self.begun)


class Sent:
    """A request that left and has no reply yet, held by its connection: if that is dropped, the app has left."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange: Exchange | None = exchange

    def answered(self) -> Exchange:
        """The exchange, which whoever has the reply answers for from now on. Once only."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            raise RuntimeError("a request was answered twice")
        return exchange

    def __del__(self) -> None:
        if self._exchange is not None:
            self._exchange.end(complete=False)


def suppressed() -> bool:
    """Whether somebody up the stack asked instrumentations to stay away: no HTTP span is then made.

    The call itself is recorded all the same: another LLM instrumentation says so to hide the HTTP request under its own
    span, and no exporter sends anything that is taken for a call.
    """
    here = context.get_current()
    return bool(here) and bool(here.get(context._SUPPRESS_INSTRUMENTATION_KEY) or here.get(_PLAIN_SUPPRESS_KEY))


def open_exchange(recorder: Recorder, request: Request, *, http_span: bool) -> Exchange | None:
    """Begin to watch the request if it goes to an LLM; None when it doesn't."""
    wire = recognise(request, recorder.settings.hosts)
    if wire is None:
        return None
    reader = wire.reader(request, recorder.fingerprints, tool_names=recorder.settings.tool_names)
    return Exchange(recorder, reader, request, http_span=http_span and not suppressed())


def end_all() -> None:
    """At the end of the process: what is still open was left before its end."""
    for exchange in list(live):
        exchange.end(complete=False)
