"""spendwatch's own spans -> calls, at once and without a detour.

Nearly all spans that come in are our SDK's, so they have a way of their own: one look-up for all attributes together,
one check of all their types together, one object each. What is out of the ordinary (a value of a wrong type, empty
text) goes through spendwatch.semconv, which is what this must agree with. Never here: other instrumentations.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from collectors.otlp.spans import Span
from spendwatch import money, semconv
from spendwatch.calls import (
    NOTHING,
    TAG_NAMES,
    CallStatus,
    CostBasis,
    Fingerprint,
    LLMCall,
    Tags,
    TokenUsage,
    ToolFingerprint,
)
from spendwatch.quick import maker

_TEXTS = (
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model",
    "gen_ai.response.id", "server.address", "error.type", "spendwatch.serving_provider", "spendwatch.service_tier",
    "spendwatch.key_hash", "spendwatch.wire_format", "spendwatch.cost.price_version",
    "spendwatch.cost.reported", "spendwatch.cost.upstream", "spendwatch.cost.listed",
    "spendwatch.status", "spendwatch.source", "spendwatch.cost.basis",
    "spendwatch.tags.team", "spendwatch.tags.project", "spendwatch.tags.agent", "spendwatch.tags.session",
    "spendwatch.tags.user", "spendwatch.tags.feature", "spendwatch.tags.environment",
    "gen_ai.agent.name", "gen_ai.conversation.id", "user.id",
    "spendwatch.fingerprint.system", "spendwatch.fingerprint.prefix", "spendwatch.fingerprint.last",
    "spendwatch.fingerprint.last_role", "spendwatch.fingerprint.last_simhash",
    "spendwatch.fingerprint.last_normalised", "spendwatch.fingerprint.response",
    "spendwatch.fingerprint.response_simhash",
)  # fmt: skip
_INTS = (
    "server.port", "http.response.status_code",
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.total_tokens",
    "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens",
    "spendwatch.usage.cache_write_1h.input_tokens", "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.audio.input_tokens", "gen_ai.usage.audio.output_tokens",
    "gen_ai.usage.image.input_tokens", "gen_ai.usage.image.output_tokens",
    "spendwatch.fingerprint.last_length", "spendwatch.fingerprint.messages", "spendwatch.fingerprint.response_length",
)  # fmt: skip
_BOOLS = ("spendwatch.is_byok", "gen_ai.request.stream", "spendwatch.fingerprint.last_is_error")
_DOUBLES = ("gen_ai.response.time_to_first_chunk",)
_LISTS = ("gen_ai.response.finish_reasons", "spendwatch.fingerprint.tools")
_NAMES = _TEXTS + _INTS + _BOOLS + _DOUBLES + _LISTS
_TYPES = (str,) * len(_TEXTS) + (int,) * len(_INTS) + (bool,) * len(_BOOLS) + (float,) * len(_DOUBLES) + (list,) * 2

# What our SDK sends for others to read: known, and not read.
_MIRRORS = ("gen_ai.usage.cost.amount", "gen_ai.usage.cost.currency", "gen_ai.usage.cost.source")

# What a span's attributes are laid over, so that each name has a value.
_BLANK: dict[str, object] = dict.fromkeys(_NAMES + _MIRRORS)

_all = itemgetter(*_NAMES)
_ints = slice(len(_TEXTS), len(_TEXTS) + len(_INTS))
_NONE = type(None)
_MAX_SHAPES = 1_000
_shapes: set[tuple[type, ...]] = set()

_make_call, _make_usage, _make_tags, _make_fingerprint = (
    maker(LLMCall), maker(TokenUsage), maker(Tags), maker(Fingerprint),
)  # fmt: skip
_BASES = {basis.value: basis for basis in CostBasis}
_STATUSES = {status.value: status for status in CallStatus}
_NO_FINGERPRINT = (None,) * 12


class Origin:
    """Where the calls of one resource come from: what its process says of itself, and the token's project."""

    def __init__(self, resource: Mapping[str, object], project: str) -> None:
        self.resource = resource
        self.project = project
        self.service_name = _text(resource.get(semconv.SERVICE_NAME))
        tags = {name: _text(resource.get(f"spendwatch.tags.{name}")) for name in TAG_NAMES}
        tags["environment"] = (
            tags["environment"]
            or _text(resource.get("deployment.environment.name"))
            or _text(resource.get("deployment.environment"))
        )
        self.tags = tags
        self._ready = tuple(tags[name] for name in TAG_NAMES)

    def call(self, span: Span, started_at: datetime, duration_us: int) -> LLMCall:
        """The call of a span whose ids and times are good. Raises KeyError when the span names no provider."""
        call = self._ordinary(span, started_at, duration_us)
        if call is not None:
            return call
        call = semconv.from_attributes(
            span.attributes,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            started_at=started_at,
            duration_us=duration_us,
            resource=self.resource,
        )
        return self.tagged(call)

    def tagged(self, call: LLMCall) -> LLMCall:
        """The call with the process' tags where it has none of its own, and the token's project whatever it says."""
        tags = {name: getattr(call.tags, name) or self.tags[name] for name in TAG_NAMES}
        attributes = call.attributes
        if tags["project"] not in (None, self.project):
            attributes = {**attributes, "tagged_project": str(tags["project"])}
        tags["project"] = self.project
        return replace(call, tags=Tags(**tags, extra=call.tags.extra), attributes=attributes)

    def _ordinary(self, span: Span, started_at: datetime, duration_us: int) -> LLMCall | None:
        attributes = _BLANK | span.attributes
        values: tuple[Any, ...] = _all(attributes)
        types = tuple(map(type, values))
        if types not in _shapes and not _learn(types):
            return None
        if "" in values or min(filter(None, values[_ints]), default=0) < 0:
            return None
        (
            operation, provider, request_model, response_model, response_id, address, error_type, serving, tier,
            key_hash, wire_format, price_version, reported, upstream, listed, status, source, basis,
            team, project, agent, session, user, feature, environment, agent_name, conversation, user_id,
            system, prefix, last, last_role, last_simhash, last_normalised, response, response_simhash,
            port, http_status, input_, output, total, cache_read, cache_write, cache_write_1h, reasoning,
            input_audio, output_audio, input_image, output_image, last_length, messages, response_length,
            is_byok, streamed, last_is_error, first_chunk, finish_reasons, tools,
        ) = values  # fmt: skip
        if provider is None:
            return None
        extra: Mapping[str, str] = NOTHING
        more: Mapping[str, str] = NOTHING
        if len(attributes) > len(_BLANK):
            extra = _prefixed(attributes, semconv.TAGS_EXTRA_PREFIX)
            more = _prefixed(attributes, semconv.ATTRIBUTES_PREFIX)
        ready = self._ready
        tagged_project = project or ready[1]
        if tagged_project is not None and tagged_project != self.project:
            more = {**more, "tagged_project": tagged_project}
        tags = _make_tags(
            team or ready[0],
            self.project,
            agent or agent_name or ready[2],
            session or conversation or ready[3],
            user or user_id or ready[4],
            feature or ready[5],
            environment or ready[6],
            extra,
        )
        asked = tuple(filter(None, map(_tool, tools))) if tools else ()
        printed = (
            system, prefix, last, last_role, last_simhash, last_length, last_is_error, last_normalised, messages,
            response, response_simhash, response_length,
        )  # fmt: skip
        return _make_call(
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            started_at,
            duration_us,
            round(first_chunk * 1_000_000) if first_chunk is not None and 0 <= first_chunk < 1e9 else None,
            provider,
            serving,
            operation or "chat",
            request_model,
            response_model,
            response_id,
            address,
            port,
            _make_usage(
                input_,
                output,
                total,
                cache_read,
                cache_write,
                cache_write_1h,
                reasoning,
                input_audio,
                output_audio,
                input_image,
                output_image,
            ),
            None if reported is None else _cost(reported),
            None if upstream is None else _cost(upstream),
            None if listed is None else _cost(listed),
            _BASES.get(basis, CostBasis.UNPRICED),
            price_version,
            is_byok,
            tier,
            _STATUSES.get(status, CallStatus.OK),
            http_status,
            error_type,
            tuple(reason for reason in finish_reasons if isinstance(reason, str)) if finish_reasons else (),
            bool(streamed),
            self.service_name,
            tags,
            key_hash,
            None if not asked and printed == _NO_FINGERPRINT else _make_fingerprint(*printed[:9], asked, *printed[9:]),
            wire_format,
            more,
            source or "sdk",
        )


def _learn(types: tuple[type, ...]) -> bool:
    """Whether each attribute is missing or of its own type. There are few such combinations; they are kept."""
    if not all(found is _NONE or found is expected for found, expected in zip(types, _TYPES, strict=True)):
        return False
    if len(_shapes) < _MAX_SHAPES:
        _shapes.add(types)
    return True


def _cost(said: str) -> Decimal | None:
    try:
        amount = Decimal(said.strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and money.ZERO <= amount <= money.MAX_COST_USD else None


def _tool(item: object) -> ToolFingerprint | None:
    parts = item.rsplit(":", 2) if isinstance(item, str) else ()
    return ToolFingerprint(name=parts[0], arguments=parts[1], arguments_simhash=parts[2]) if len(parts) == 3 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _prefixed(attributes: Mapping[str, object], prefix: str) -> Mapping[str, str]:
    size = len(prefix)
    found = {
        name[size:]: value for name, value in attributes.items() if name.startswith(prefix) and isinstance(value, str)
    }
    return MappingProxyType(found) if found else NOTHING
