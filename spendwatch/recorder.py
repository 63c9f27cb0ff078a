"""From a reply to a recorded call: timing, tags, key hash and listed cost are added, and one span is handed on.

Every finished call becomes one span, whatever the app's own sampler decides: the recorder asks no tracer provider. It
goes to the spool as bytes (no span object waits anywhere), or to the exporter that the app named instead. Never here:
reading bodies, HTTP, prompts or keys.
"""

import hashlib
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from spendwatch import prices, tagging
from spendwatch.calls import NOTHING, CallStatus, CostBasis, LLMCall, Tags
from spendwatch.config import Settings
from spendwatch.draft import loose
from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
_NAME = 100
"""Characters of an error's name at most."""
_LooseCall = loose(LLMCall)
_MAX_KEYS = 256
_key_hashes: dict[tuple[int, int], str] = {}


class _Ids:
    """Random span and trace ids. Processes forked from one state must not share theirs: each seeds its own source."""

    __slots__ = ("_bits", "_pid")

    def __init__(self) -> None:
        self._pid = -1

    def bits(self, count: int) -> int:
        pid = os.getpid()
        if pid != self._pid:
            # Asked each time, because not every server that forks lets Python know.
            self._bits = random.Random(int.from_bytes(os.urandom(32), "big")).getrandbits  # noqa: S311  # ids
            self._pid = pid
        return self._bits(count) or 1


_ids = _Ids()


class Sink(Protocol):
    """Where recorded calls go."""

    def take(self, call: LLMCall) -> None: ...
    def pending(self) -> bool: ...
    def flush(self, timeout_s: float, *, retry: bool = True) -> bool: ...
    def close(self) -> None: ...
    def watch_children(self) -> None: ...
    def after_fork(self) -> None: ...


class Begun:
    """What is known of a call when its request leaves."""

    __slots__ = ("_ids", "app_span", "clock_ns", "context", "parent", "started_ns", "tags")

    def __init__(
        self, started_ns: int, clock_ns: int, parent: SpanContext, here: context.Context | None, tags: Tags
    ) -> None:
        self.started_ns = started_ns
        self.clock_ns = clock_ns
        self.parent = parent
        """The span that was current; perhaps not a valid one."""
        self.context = here
        """Where the call was made, when a span of the app's own is to be made of it at its end."""
        self.tags = tags
        self.app_span: Span | None = None
        """The call's span in the app's own traces, when it has begun already."""
        self._ids: tuple[int, int] | None = None

    def ids(self) -> tuple[int, int]:
        """The trace id and the span id; made when they are first asked for."""
        found = self._ids
        if found is None:
            trace_id = self.parent.trace_id if self.parent.is_valid else _ids.bits(128)
            found = self._ids = (trace_id, _ids.bits(64))
        return found

    def adopt(self, span: Span) -> None:
        """Be the same span as this one of the app's, if it has an identity of its own."""
        identity = span.get_span_context()
        if identity.is_valid and (not self.parent.is_valid or identity.span_id != self.parent.span_id):
            self._ids = (identity.trace_id, identity.span_id)

    def span_context(self) -> SpanContext:
        """The identity that a span under this call has as its parent."""
        trace_id, span_id = self.ids()
        flags = self.parent.trace_flags if self.parent.is_valid else TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))


class Recorder:
    """Turns replies into calls and hands them to one sink. One per instrument(); used by all threads at once."""

    def __init__(
        self, settings: Settings, sink: Sink, fingerprints: Fingerprinter, tracer_provider: trace.TracerProvider | None
    ) -> None:
        self.settings = settings
        self.sink = sink
        self._service = settings.resource["service.name"]
        self.tracer_provider = tracer_provider
        self.fingerprints = fingerprints
        self._prices = prices.Lister(prices.packaged())

    @cached_property
    def _spans(self) -> ModuleType:
        """What makes spans of the app's; it needs OpenTelemetry's SDK, which an app without one shall not load."""
        from spendwatch import spans

        return spans

    @cached_property
    def _tracer(self) -> trace.Tracer | None:
        """What makes the calls' spans in the app's own traces, where the app named a provider."""
        found: trace.Tracer | None = None
        if self.tracer_provider is not None:
            found = self._spans.tracer_of(self.tracer_provider)
        return found

    def begin(self, *, on_app_traces: bool = False) -> Begun:
        """A request to an LLM is about to leave: take the time, the tags, and a place in the current trace.

        on_app_traces: spans will stand under the call's, so that one in the app's traces has to begin now.
        """
        now = time.time_ns()
        provider, here = self.tracer_provider, context.get_current()
        begun = Begun(
            now,
            time.perf_counter_ns(),
            trace.get_current_span(here).get_span_context(),
            here if provider is not None else None,
            tagging.current(self.settings.tags),
        )
        if on_app_traces:
            begun.app_span = self._spans.start(provider or trace.get_tracer_provider(), now)
            begun.adopt(begun.app_span)
        return begun

    def record(
        self,
        begun: Begun,
        reply: Reply,
        *,
        host: str,
        port: int | None,
        key_hash: str | None,
        ended_clock_ns: int,
        first_chunk_clock_ns: int | None,
        http_status: int | None,
        status: CallStatus,
        error_type: str | None,
        note: str | None = None,
    ) -> None:
        """The exchange is over: make the call of it and hand it on."""
        attributes = reply.attributes
        note = note or reply.note
        error_code = reply.error_code and named(reply.error_code)
        if note is not None or error_code:
            attributes = dict(attributes)
            if note is not None:
                attributes["note"] = note
            if error_code:
                attributes["error_code"] = error_code
        first_us = None
        if reply.streamed and first_chunk_clock_ns is not None:
            first_us = max(first_chunk_clock_ns - begun.clock_ns, 0) // 1_000
        parent = begun.parent
        call = _LooseCall(
            trace_id="",
            span_id="",
            parent_span_id=f"{parent.span_id:016x}" if parent.is_valid else None,
            started_at=_EPOCH + timedelta(microseconds=begun.started_ns // 1_000),
            duration_us=max(ended_clock_ns - begun.clock_ns, 0) // 1_000,
            time_to_first_chunk_us=first_us,
            provider_name=reply.provider_name,
            serving_provider=reply.serving_provider,
            operation_name=reply.operation_name,
            request_model=reply.request_model,
            response_model=reply.response_model,
            response_id=reply.response_id,
            server_address=host or None,
            server_port=port,
            usage=reply.usage,
            reported_cost=None,
            upstream_cost=reply.upstream_cost,
            listed_cost=None,
            cost_basis=CostBasis.UNPRICED,
            price_version=None,
            is_byok=reply.is_byok,
            service_tier=reply.service_tier,
            status=status,
            http_status=http_status,
            error_type=error_type,
            finish_reasons=reply.finish_reasons,
            streamed=reply.streamed,
            service_name=self._service,
            tags=begun.tags,
            key_hash=key_hash,
            fingerprint=reply.fingerprint,
            wire_format=reply.wire_format,
            attributes=attributes or NOTHING,
            source="sdk",
        )
        # Its tokens are valued whatever was reported, so that the two can be compared.
        listed, version = self._prices.listed(call)
        if listed is not None:
            call.listed_cost, call.price_version, call.cost_basis = listed, version, CostBasis.LISTED
        if reply.reported_cost is not None:
            call.reported_cost, call.cost_basis = reply.reported_cost, CostBasis.REPORTED
        self._hand_on(begun, call)

    def _hand_on(self, begun: Begun, call: Any) -> None:
        """Give the call its ids, and it to whoever is to have it. The sink has it before the app's pipeline."""
        app_span, fresh, here = begun.app_span, False, begun.context
        if (
            app_span is None
            and here is not None
            and not (begun.parent.is_valid and self._spans.told_by_its_client(here, call))
        ):
            app_span, fresh = self._spans.whole(self._tracer, here, begun.started_ns, call), True
            begun.adopt(app_span)
        trace_id, span_id = begun.ids()
        call.trace_id, call.span_id = f"{trace_id:032x}", f"{span_id:016x}"
        call.__class__ = LLMCall
        self.sink.take(call)
        if app_span is not None:
            (self._spans.close if fresh else self._spans.end)(app_span, call)

    def drop(self, begun: Begun) -> None:
        """The exchange turned out to be no call of an LLM."""
        if begun.app_span is not None:
            begun.app_span.end()

    def after_fork(self) -> None:
        """In a forked child: what waits to be sent is the parent's to send."""
        self.sink.after_fork()


def named(*given: str | None) -> str | None:
    """The first of these that is a name and no sentence: what a provider says in words may quote the prompt or key."""
    return next((one for one in given if one and len(one) <= _NAME and one.isprintable() and " " not in one), None)


def key_hash(headers: Mapping[str, str]) -> str | None:
    """SHA-256 hex of the API key in the request's headers, None when there is none. The key itself is not kept."""
    given = headers.get("authorization")
    if given is not None:
        scheme, _, key = given.partition(" ")
        if scheme.lower() != "bearer":
            return None
    else:
        key = next((value for value in map(headers.get, _KEY_HEADERS) if value), "")
    key = key.strip()
    if not key:
        return None
    # Remembered by Python's own hash of it, keyed anew in each process: the key itself stays out of our memory.
    shadow = (hash(key), len(key))
    found = _key_hashes.get(shadow)
    if found is None:
        if len(_key_hashes) >= _MAX_KEYS:
            _key_hashes.clear()
        found = _key_hashes[shadow] = hashlib.sha256(key.encode()).hexdigest()
    return found
