"""From a reply to a recorded call: timing, tags, key hash and listed cost are added, and one span is handed on.

Every finished call becomes one span, whatever the app's own sampler decides: the recorder asks no tracer provider. It
goes to the spool as bytes (no span object waits anywhere), or to the exporter that the app named instead. Never here:
reading bodies, HTTP, prompts or keys.
"""

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from spendwatch import prices, tagging
from spendwatch.calls import NOTHING, CallStatus, CostBasis, LLMCall, Tags
from spendwatch.config import Settings
from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
# Ids must differ between processes that were forked from one seeded state: the system's own source.
_ids = random.SystemRandom()


class Sink(Protocol):
    """Where recorded calls go."""

    def take(self, call: LLMCall) -> None: ...
    def pending(self) -> bool: ...
    def flush(self, timeout_s: float, *, retry: bool = True) -> bool: ...
    def close(self) -> None: ...
    def after_fork(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of a call when its request leaves."""

    started_ns: int
    clock_ns: int
    trace_id: int
    span_id: int
    parent_span_id: int | None
    sampled: bool
    tags: Tags
    app_span: Span | None
    """The call's span in the app's own traces, when it is shown there."""

    def span_context(self) -> SpanContext:
        """The identity that a span under this call has as its parent."""
        flags = TraceFlags(TraceFlags.SAMPLED if self.sampled else TraceFlags.DEFAULT)
        return SpanContext(self.trace_id, self.span_id, is_remote=False, trace_flags=flags)


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

    def begin(self, *, on_app_traces: bool = False) -> Begun:
        """A request to an LLM is about to leave: take the time, the tags, and a place in the current trace."""
        now = time.time_ns()
        parent = trace.get_current_span().get_span_context()
        known = parent.is_valid
        app_span = None
        provider = self.tracer_provider
        if provider is None and on_app_traces:
            provider = trace.get_tracer_provider()
        if provider is not None:
            app_span = self._app_span(provider, now)
        identity = app_span.get_span_context() if app_span is not None else None
        if identity is not None and identity.is_valid and (not known or identity.span_id != parent.span_id):
            trace_id, span_id = identity.trace_id, identity.span_id
        else:
            trace_id = parent.trace_id if known else _ids.getrandbits(128) or 1
            span_id = _ids.getrandbits(64) or 1
        return Begun(
            started_ns=now,
            clock_ns=time.perf_counter_ns(),
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent.span_id if known else None,
            sampled=bool(parent.trace_flags & TraceFlags.SAMPLED) if known else True,
            tags=tagging.current(self.settings.tags),
            app_span=app_span,
        )

    @staticmethod
    def _app_span(provider: trace.TracerProvider, now: int) -> Span:
        from spendwatch import spans

        return spans.start(provider, now)

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
        if note is not None or reply.error_code is not None:
            attributes = dict(attributes)
            if note is not None:
                attributes["note"] = note
            if reply.error_code is not None:
                attributes["error_code"] = reply.error_code
        first_us = None
        if reply.streamed and first_chunk_clock_ns is not None:
            first_us = max(first_chunk_clock_ns - begun.clock_ns, 0) // 1_000
        call = LLMCall(
            trace_id=f"{begun.trace_id:032x}",
            span_id=f"{begun.span_id:016x}",
            parent_span_id=f"{begun.parent_span_id:016x}" if begun.parent_span_id else None,
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
        )
        _cost(call, reply.reported_cost, reply.upstream_cost)
        self.sink.take(call)
        if begun.app_span is not None:
            from spendwatch import spans

            spans.end(begun.app_span, call)

    def drop(self, begun: Begun) -> None:
        """The exchange turned out to be no call of an LLM."""
        if begun.app_span is not None:
            begun.app_span.end()

    def after_fork(self) -> None:
        """In a forked child: what waits to be sent is the parent's to send."""
        self.sink.after_fork()


def _cost(call: LLMCall, reported: Decimal | None, upstream: Decimal | None) -> None:
    """Fill in what a new call cost: as reported, and its tokens by the packaged book, whatever was reported."""
    priced = prices.value(call, prices.packaged())
    # Nobody has seen this call yet, so it may still change; a changed copy of 34 fields would cost 8 µs each time.
    fill = object.__setattr__
    if priced.effective_cost is not None:
        fill(call, "listed_cost", priced.effective_cost)
        fill(call, "price_version", priced.price_version)
        fill(call, "cost_basis", CostBasis.LISTED)
    if reported is not None:
        fill(call, "reported_cost", reported)
        fill(call, "cost_basis", CostBasis.REPORTED)
    if upstream is not None:
        fill(call, "upstream_cost", upstream)


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
    return hashlib.sha256(key.encode()).hexdigest() if key else None
