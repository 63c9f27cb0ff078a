"""Span -> LLMCall: spendwatch's own by spendwatch.semconv, others through the dialect table. Pure.

A span that is not a call to a model gives None: it is none of our business. One that is but can't be right (no ids, no
start) gives Rejected, so that its sender hears of it.
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from collectors.otlp.dialects import Dialect, dialect_of
from collectors.otlp.foreign import FIRST_CHUNK, Facts, costs, first_chunk_us, microseconds, text_of, tokens_of
from collectors.otlp.own import Origin
from collectors.otlp.providers import host_of, provider_by_model, provider_name
from collectors.otlp.spans import Rejected, Span
from collectors.otlp.usage import count
from spendwatch import money, semconv
from spendwatch.calls import CallStatus, CostBasis, LLMCall, Tags, TokenUsage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_NS = 1_577_836_800 * 10**9
_AHEAD = timedelta(days=1)
_LEFT = ("disconnected", "cancelled", "canceled")
"""How a message says that the app left before the end ("The client has disconnected": OpenRouter's Broadcast)."""
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Reader:
    """Reads the spans of one request, in the order in which they came."""

    def __init__(self, *, project: str, now: datetime) -> None:
        self._project = project
        self.latest_ns = _nanoseconds(now + _AHEAD)
        self._origin: Origin | None = None

    def read(self, span: Span) -> LLMCall | Rejected | None:
        """The call that a span speaks of, tagged with the project it was sent for."""
        origin = self._origin
        if origin is None or origin.resource is not span.resource:
            origin = self._origin = Origin(span.resource, self._project)
        return _read(span, origin, self.latest_ns)


def read(span: Span, *, project: str, now: datetime) -> LLMCall | Rejected | None:
    """The call that a span speaks of, tagged with the project it was sent for."""
    return Reader(project=project, now=now).read(span)


def _read(span: Span, origin: Origin, latest_ns: int) -> LLMCall | Rejected | None:
    own = span.scope == semconv.SCOPE_NAME and semconv.COST_BASIS in span.attributes
    dialect: Dialect | None = None
    operation: str | None = None
    if not own:
        dialect = dialect_of(span)
        operation = dialect.operation(span) if dialect is not None else None
        if operation is None:
            return None
    if len(span.trace_id) != 32 or span.trace_id == _NO_TRACE:
        return Rejected("a span without a trace id of 16 bytes that are not all zero")
    if len(span.span_id) != 16 or span.span_id == _NO_SPAN:
        return Rejected("a span without a span id of 8 bytes that are not all zero")
    if not EARLIEST_NS <= span.start_ns <= latest_ns:
        return Rejected(f"a span that starts {span.start_ns} ns after 1970, expected a time from 2020 to tomorrow")
    started_at = _EPOCH + timedelta(0, 0, span.start_ns // 1000)
    # A clock that was set back during the call makes the end come first; the spend is true all the same.
    duration_us = max(0, span.end_ns // 1000 - span.start_ns // 1000) if span.end_ns else 0
    if dialect is None or operation is None:
        try:
            return origin.call(span, started_at, duration_us)
        except KeyError as error:
            return Rejected(f"a spendwatch span without {error.args[0]}")
    call = _foreign(span, dialect, operation, started_at, duration_us)
    if call is None:
        return Rejected(f"a {dialect.name} span that names no provider, no known host and no model")
    return origin.tagged(call)


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def _foreign(span: Span, dialect: Dialect, operation: str, started_at: datetime, duration_us: int) -> LLMCall | None:
    facts = Facts(span, dialect)
    response_id = facts.text("response_id")
    address = facts.text("server_address")
    host = host_of(address or facts.text("base_url"))
    provider = (
        dialect.provider
        or provider_name(facts.text("provider_name"), host, response_id)
        or provider_by_model(facts.text("provider_model"), facts.text("request_model"))
    )
    if provider is None:
        return None
    attributes: dict[str, str] = {}
    reported: Decimal | None = None
    listed: Decimal | None = None
    if dialect.replayed(facts.attributes):
        # Nobody was asked: the reply's id, tokens and cost are those of the call that filled the cache.
        attributes["replayed_response_id"] = response_id or ""
        response_id = None
        tokens, reported = TokenUsage(input_tokens=0, output_tokens=0), money.ZERO
    else:
        tokens = tokens_of(facts, dialect, provider, attributes)
        reported, listed = costs(facts, dialect, bool(tokens.input_tokens or tokens.output_tokens), attributes)
    key_name = facts.text("key_name")
    if key_name is not None:
        attributes["key_name"] = key_name
    error_type = facts.text("error_type")
    if not duration_us:
        duration_us = microseconds(facts.any("duration_s"), 1_000_000) or 0
        started_at -= timedelta(microseconds=duration_us)
    return LLMCall(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        started_at=started_at,
        duration_us=duration_us,
        time_to_first_chunk_us=first_chunk_us(facts, started_at),
        provider_name=provider,
        serving_provider=facts.text("serving_provider"),
        operation_name=operation,
        request_model=facts.text("request_model"),
        response_model=facts.text("response_model"),
        response_id=response_id,
        server_address=address or host,
        server_port=count(facts.any("server_port")),
        usage=tokens,
        reported_cost=reported,
        listed_cost=listed,
        cost_basis=CostBasis.REPORTED
        if reported is not None
        else CostBasis.UNPRICED
        if listed is None
        else CostBasis.LISTED,
        upstream_cost=money.parse_cost(facts.any("upstream_cost")),
        is_byok=facts.flag("is_byok"),
        service_tier=facts.text("service_tier"),
        status=_status(span, facts, error_type),
        http_status=count(facts.any("http_status")),
        error_type=error_type,
        finish_reasons=_texts(facts.any("finish_reasons")),
        streamed=_streamed(span, facts),
        service_name=None if dialect.observer else text_of(span.resource.get(semconv.SERVICE_NAME)),
        tags=Tags(
            team=facts.text("team"),
            agent=facts.text("agent"),
            session=facts.text("session"),
            user=facts.text("user"),
            environment=facts.text("environment"),
        ),
        attributes=attributes,
        source=dialect.observer or f"otlp:{dialect.name}",
    )


def _streamed(span: Span, facts: Facts) -> bool:
    said = facts.flag("streamed")
    if said is not None:
        return said
    # Only a stream has a first chunk; these two say it in their names.
    named = "doStream" in span.name or span.name.startswith("streaming response")
    return named or any(facts.any(fact) is not None for fact in FIRST_CHUNK)


def _status(span: Span, facts: Facts, error_type: str | None) -> CallStatus:
    failed = span.failed or facts.text("level") == "ERROR"
    if not failed and not error_type:
        return CallStatus.OK
    said = f"{span.status_message} {facts.text('status_message') or ''}".lower()
    left = any(word in said for word in _LEFT)
    return CallStatus.ABORTED if failed and left and not error_type else CallStatus.ERROR


def _texts(value: object) -> tuple[str, ...]:
    """A list of texts; some senders write it as JSON in one string, or one bare word."""
    if isinstance(value, str):
        if value.startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return ()
        else:
            return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
