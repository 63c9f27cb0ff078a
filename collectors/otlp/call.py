"""Span -> LLMCall: spendwatch's own by spendwatch.semconv, others through the dialect table. Pure.

A span that is not a call to a model gives None: it is none of our business. One that is but can't be right (no ids, no
start) gives Rejected, so that its sender hears of it.
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from collectors.otlp.dialects import Dialect, dialect_of
from collectors.otlp.own import Origin
from collectors.otlp.providers import host_of, provider_by_model, provider_name
from collectors.otlp.spans import Rejected, Span
from collectors.otlp.unfolding import unfold
from collectors.otlp.usage import Counts, count, usage
from spendwatch import money, semconv
from spendwatch.calls import CallStatus, CostBasis, LLMCall, Tags, TokenUsage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_NS = 1_577_836_800 * 10**9
_AHEAD = timedelta(days=1)
_MAX_SPAN_COST_USD = Decimal(1000)
_LEFT = ("disconnected", "cancelled", "canceled")
"""How a message says that the app left before the end ("The client has disconnected": OpenRouter's Broadcast)."""
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Reader:
    """Reads the spans of one request, in the order in which they came."""

    def __init__(self, *, project: str, now: datetime) -> None:
        self._project = project
        self._latest_ns = _nanoseconds(now + _AHEAD)
        self._origin: Origin | None = None

    def read(self, span: Span) -> LLMCall | Rejected | None:
        """The call that a span speaks of, tagged with the project it was sent for."""
        origin = self._origin
        if origin is None or origin.resource is not span.resource:
            origin = self._origin = Origin(span.resource, self._project)
        return _read(span, origin, self._latest_ns)


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
    if not _EARLIEST_NS <= span.start_ns <= latest_ns:
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


class _Facts:
    """The attributes of a span under a dialect's names."""

    def __init__(self, span: Span, dialect: Dialect) -> None:
        self.attributes = unfold(span.attributes, dialect.unfold)
        self._names = dialect.names

    def any(self, fact: str) -> object:
        for name in self._names.get(fact, ()):
            value = self.attributes.get(name)
            if value is not None and value != "":
                return value
        return None

    def text(self, fact: str) -> str | None:
        return _text(self.any(fact))

    def flag(self, fact: str) -> bool | None:
        value = self.any(fact)
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())

    def count(self, fact: str) -> int | None:
        for name in self._names.get(fact, ()):
            value = count(self.attributes.get(name))
            if value is not None:
                return value
        return None


def _foreign(span: Span, dialect: Dialect, operation: str, started_at: datetime, duration_us: int) -> LLMCall | None:
    facts = _Facts(span, dialect)
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
        tokens = _tokens(facts, dialect, provider, attributes)
        reported, listed = _costs(facts, dialect, bool(tokens.input_tokens or tokens.output_tokens), attributes)
    key_name = facts.text("key_name")
    if key_name is not None:
        attributes["key_name"] = key_name
    error_type = facts.text("error_type")
    if not duration_us:
        duration_us = _microseconds(facts.any("duration_s"), 1_000_000) or 0
        started_at -= timedelta(microseconds=duration_us)
    return LLMCall(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        started_at=started_at,
        duration_us=duration_us,
        time_to_first_chunk_us=_first_chunk_us(facts, started_at),
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
        status=_status(span, facts, error_type, reported),
        http_status=count(facts.any("http_status")),
        error_type=error_type,
        finish_reasons=_texts(facts.any("finish_reasons")),
        streamed=facts.flag("streamed") or "doStream" in span.name,
        service_name=None if dialect.observer else _text(span.resource.get(semconv.SERVICE_NAME)),
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


def _tokens(facts: _Facts, dialect: Dialect, provider: str, attributes: dict[str, str]) -> TokenUsage:
    given, output = facts.count("input_tokens"), facts.count("output_tokens")
    includes_cache, includes_reasoning = dialect.input_includes_cache, True
    if given is None:
        given = facts.count("uncached_input")
        includes_cache = False if given is not None else includes_cache
    if output is None:
        output = facts.count("visible_output")
        includes_reasoning = output is None
    counts = Counts(
        input=given,
        output=output,
        total=facts.count("total_tokens"),
        cache_read=facts.count("cache_read"),
        cache_write=facts.count("cache_write"),
        cache_write_1h=facts.count("cache_write_1h"),
        reasoning=facts.count("reasoning"),
        input_audio=facts.count("input_audio"),
        output_audio=facts.count("output_audio"),
        input_image=facts.count("input_image"),
        output_image=facts.count("output_image"),
    )
    tokens, semantics = usage(
        counts, provider=provider, includes_cache=includes_cache, includes_reasoning=includes_reasoning
    )
    if semantics:
        attributes["usage_semantics"] = semantics
    return tokens


def _status(span: Span, facts: _Facts, error_type: str | None, charged: Decimal | None) -> CallStatus:
    failed = span.failed or facts.text("level") == "ERROR"
    if not failed and not error_type:
        return CallStatus.OK
    said = f"{span.status_message} {facts.text('status_message') or ''}".lower()
    left = any(word in said for word in _LEFT)
    return CallStatus.ABORTED if failed and left and not error_type and not charged else CallStatus.ERROR


def _first_chunk_us(facts: _Facts, started_at: datetime) -> int | None:
    found = _microseconds(facts.any("first_chunk_s"), 1_000_000) or _microseconds(facts.any("first_chunk_ms"), 1000)
    at = facts.text("first_chunk_at")
    if found is None and at is not None:
        try:
            arrived = datetime.fromisoformat(at.strip('"'))
        except ValueError:
            return None
        if arrived.tzinfo is not None and arrived >= started_at:
            return (arrived - started_at) // timedelta(microseconds=1)
    return found


def _costs(
    facts: _Facts, dialect: Dialect, has_tokens: bool, attributes: dict[str, str]
) -> tuple[Decimal | None, Decimal | None]:
    """(charged, estimated) in USD. A cost that can't be one is kept as an attribute, so that it can be looked into."""
    charge = money.parse_cost(facts.any("charged_cost"))
    if charge is not None and charge <= _MAX_SPAN_COST_USD:
        return charge, None
    said = facts.any("cost")
    amount = money.parse_cost(said)
    currency = facts.text("cost_currency")
    if said is None:
        return None, None
    if amount is None or amount > _MAX_SPAN_COST_USD or currency not in (None, "USD"):
        attributes["cost_rejected"] = f"{said} {currency or 'USD'}"[:100]
        return None, None
    charged = dialect.cost_is_charged or facts.text("cost_source") == "provider"
    if amount == 0 and has_tokens and not dialect.cost_is_charged:
        # An instrumentation writes 0 when it does not know the price. A model that is free is so by the price book.
        return None, None
    return (amount, None) if charged else (None, amount)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


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


def _microseconds(value: object, unit: int) -> int | None:
    amount = money.parse(value)
    return round(amount * unit) if amount is not None and 0 <= amount < 10**9 else None
