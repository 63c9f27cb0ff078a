"""GenAI span attributes, and the one translation between them and an LLMCall.

Both ends use it, so from_attributes(to_attributes(call), ...) == call. Names follow OpenTelemetry's GenAI conventions
(status: development; one pinned set is emitted, see SCHEMA_URL); what they lack stands under `spendwatch.`. Money is
an exact decimal string. Never here: other people's dialects (the OTLP collector's table maps those to these names).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from types import MappingProxyType
from typing import TypeVar

from spendwatch import money
from spendwatch.calls import (
    NOTHING,
    CallStatus,
    CostBasis,
    Fingerprint,
    LLMCall,
    Tags,
    TokenUsage,
    ToolFingerprint,
)

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/1.42.0"
SCOPE_NAME = "spendwatch"

AttributeValue = str | bool | int | float | Sequence[str]

# attribute -> field of LLMCall whose value is carried as it is
_TEXT: dict[str, str] = {
    "gen_ai.operation.name": "operation_name",
    "gen_ai.provider.name": "provider_name",
    "gen_ai.request.model": "request_model",
    "gen_ai.response.model": "response_model",
    "gen_ai.response.id": "response_id",
    "server.address": "server_address",
    "error.type": "error_type",
    "spendwatch.serving_provider": "serving_provider",
    "spendwatch.service_tier": "service_tier",
    "spendwatch.key_hash": "key_hash",
    "spendwatch.wire_format": "wire_format",
    "spendwatch.cost.price_version": "price_version",
}
_INT: dict[str, str] = {
    "server.port": "server_port",
    "http.response.status_code": "http_status",
}
_MONEY: dict[str, str] = {
    "spendwatch.cost.reported": "reported_cost",
    "spendwatch.cost.upstream": "upstream_cost",
    "spendwatch.cost.listed": "listed_cost",
}
_USAGE: dict[str, str] = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.total_tokens": "total_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cache_read_input_tokens",
    "gen_ai.usage.cache_write.input_tokens": "cache_write_input_tokens",
    "spendwatch.usage.cache_write_1h.input_tokens": "cache_write_1h_input_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_output_tokens",
    "gen_ai.usage.audio.input_tokens": "input_audio_tokens",
    "gen_ai.usage.audio.output_tokens": "output_audio_tokens",
    "gen_ai.usage.image.input_tokens": "input_image_tokens",
    "gen_ai.usage.image.output_tokens": "output_image_tokens",
}
_FINGERPRINT: dict[str, str] = {
    f"spendwatch.fingerprint.{name}": name
    for name in (
        "system", "prefix", "last", "last_role", "last_simhash", "last_length", "last_is_error", "last_normalised",
        "messages", "response", "response_simhash", "response_length",
    )
}  # fmt: skip
_TAGS: dict[str, str] = {
    f"spendwatch.tags.{name}": name
    for name in ("team", "project", "agent", "session", "user", "feature", "environment")
}
# The conventions' own names for three tags: a mirror for other backends, and what else fills the tag on the way in.
_TAG_MIRRORS: dict[str, str] = {
    "gen_ai.agent.name": "agent",
    "gen_ai.conversation.id": "session",
    "user.id": "user",
}

# The facts of a call that hardly another one shares, attribute -> field, for who reads many spans at once.
USAGE: Mapping[str, str] = MappingProxyType(_USAGE)
MONEY: Mapping[str, str] = MappingProxyType(_MONEY)
FINGERPRINT: Mapping[str, str] = MappingProxyType(_FINGERPRINT)

RESPONSE_ID = "gen_ai.response.id"
STATUS = "spendwatch.status"
SOURCE = "spendwatch.source"
COST_BASIS = "spendwatch.cost.basis"
IS_BYOK = "spendwatch.is_byok"
STREAM = "gen_ai.request.stream"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FINGERPRINT_TOOLS = "spendwatch.fingerprint.tools"
TAGS_EXTRA_PREFIX = "spendwatch.tags.extra."
ATTRIBUTES_PREFIX = "spendwatch.attributes."
COST_AMOUNT = "gen_ai.usage.cost.amount"
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"
SERVICE_NAME = "service.name"


_READ = frozenset({*_TEXT, *_INT, *_MONEY, *_USAGE, *_FINGERPRINT, *_TAGS, *_TAG_MIRRORS}) | {
    STATUS, SOURCE, COST_BASIS, IS_BYOK, STREAM, TIME_TO_FIRST_CHUNK, FINISH_REASONS, FINGERPRINT_TOOLS,
}  # fmt: skip


def reads(name: str) -> bool:
    """Whether from_attributes() looks at an attribute of this name."""
    return name in _READ or name.startswith((TAGS_EXTRA_PREFIX, ATTRIBUTES_PREFIX))


def names_of_tag(tag: str) -> tuple[str, ...]:
    """The attributes that a tag is read from, best first."""
    return tuple(name for table in (_TAGS, _TAG_MIRRORS) for name, attr in table.items() if attr == tag)


def span_name(call: LLMCall) -> str:
    """The span's name by the conventions: "{operation} {request model}"."""
    return f"{call.operation_name} {call.request_model}" if call.request_model else call.operation_name


# The fields whose attributes are the same for most calls of a process: worth keeping ready-made. See shared_key().
_SHARED = {name: attr for name, attr in (*_TEXT.items(), *_INT.items()) if attr != "response_id"}

shared_key = attrgetter(
    *_SHARED.values(), "cost_basis._value_", "status._value_", "source", "is_byok", "streamed", "finish_reasons"
)
"""What shared_attributes() depends on, as one hashable value: equal keys, equal attributes."""

_usage_values = attrgetter(*_USAGE.values())
_fingerprint_values = attrgetter(*_FINGERPRINT.values())
_USAGE_NAMES = tuple(_USAGE)
_FINGERPRINT_NAMES = tuple(_FINGERPRINT)


def to_attributes(call: LLMCall) -> dict[str, AttributeValue]:
    """The span attributes of a call; what is not known has no attribute. service_name belongs to the resource."""
    out = _kept_shared(call).copy()
    out.update(_tagged(call.tags))
    _own_to(call, out)
    return out


_kept: dict[object, dict[str, AttributeValue]] = {}
_MAX_KEPT = 512


def _kept_shared(call: LLMCall) -> dict[str, AttributeValue]:
    """The shared attributes, made once for all calls of one key. Not to be changed."""
    key = shared_key(call)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= _MAX_KEPT:
            _kept.clear()
        found = _kept[key] = shared_attributes(call)
    return found


_kept_tags: tuple[Tags, dict[str, AttributeValue]] = (Tags(), {})


def _tagged(tags: Tags) -> dict[str, AttributeValue]:
    """The tags' attributes, kept for the calls that have the very same ones. Not to be changed."""
    global _kept_tags
    # One pair, replaced whole: another thread sees the old one or the new one.
    of, found = _kept_tags
    if of is not tags:
        found = tag_attributes(tags)
        _kept_tags = (tags, found)
    return found


def shared_attributes(call: LLMCall) -> dict[str, AttributeValue]:
    """Of the attributes of a call those that many calls have in common: they depend on shared_key(call) alone."""
    out: dict[str, AttributeValue] = {}
    for name, attr in _SHARED.items():
        value = getattr(call, attr)
        if value is not None:
            out[name] = value
    out[COST_BASIS] = call.cost_basis.value
    out[STATUS] = call.status.value
    if call.source != "sdk":
        out[SOURCE] = call.source
    if call.is_byok is not None:
        out[IS_BYOK] = call.is_byok
    if call.streamed:
        out[STREAM] = True
    if call.finish_reasons:
        out[FINISH_REASONS] = call.finish_reasons
    return out


def tag_attributes(tags: Tags) -> dict[str, AttributeValue]:
    """The attributes of a call that its tags alone decide."""
    out: dict[str, AttributeValue] = {}
    for name, attr in (*_TAGS.items(), *_TAG_MIRRORS.items()):
        value = getattr(tags, attr)
        if value is not None:
            out[name] = value
    for key, text in tags.extra.items():
        out[TAGS_EXTRA_PREFIX + key] = text
    return out


def own_attributes(call: LLMCall) -> dict[str, AttributeValue]:
    """The attributes of a call that hardly another one has: its id, counts, costs, times and prints."""
    out: dict[str, AttributeValue] = {}
    _own_to(call, out)
    return out


def _own_to(call: LLMCall, out: dict[str, AttributeValue]) -> None:
    # For every call: a loop over tables that look their fields up by name would take twice as long.
    if call.response_id is not None:
        out["gen_ai.response.id"] = call.response_id
    for name, value in zip(_USAGE_NAMES, _usage_values(call.usage), strict=True):
        if value is not None:
            out[name] = value
    if call.reported_cost is not None:
        out["spendwatch.cost.reported"] = money.text(call.reported_cost)
    if call.upstream_cost is not None:
        out["spendwatch.cost.upstream"] = money.text(call.upstream_cost)
    if call.listed_cost is not None:
        out["spendwatch.cost.listed"] = money.text(call.listed_cost)
    if call.time_to_first_chunk_us is not None:
        out[TIME_TO_FIRST_CHUNK] = call.time_to_first_chunk_us / 1_000_000
    _cost_mirror(call, out)
    if call.attributes:
        for key, text in call.attributes.items():
            out[ATTRIBUTES_PREFIX + key] = text
    if call.fingerprint is not None:
        _fingerprint_to(call.fingerprint, out)


def _cost_mirror(call: LLMCall, out: dict[str, AttributeValue]) -> None:
    """gen_ai.usage.cost.*: proposed names that other backends read; a double by the proposal, so never read back."""
    if call.reported_cost is not None:
        amount: Decimal | None = call.reported_cost + ((call.upstream_cost or money.ZERO) if call.is_byok else 0)
        source = "provider"
    else:
        amount, source = call.listed_cost, "local"
    if amount is not None:
        out[COST_AMOUNT] = float(amount)
        out[COST_CURRENCY] = "USD"
        out[COST_SOURCE] = source


def _fingerprint_to(fingerprint: Fingerprint, out: dict[str, AttributeValue]) -> None:
    values = _fingerprint_values(fingerprint)
    if None not in values:
        out.update(zip(_FINGERPRINT_NAMES, values, strict=True))
    else:
        for name, value in zip(_FINGERPRINT_NAMES, values, strict=True):
            if value is not None:
                out[name] = value
    if fingerprint.tools:
        # The hashes are hex and hold no colon; a tool's name may, so it stands first and is cut off from the right.
        out[FINGERPRINT_TOOLS] = [f"{t.name}:{t.arguments}:{t.arguments_simhash}" for t in fingerprint.tools]


def from_attributes(
    attributes: Mapping[str, object],
    *,
    trace_id: str,
    span_id: str,
    parent_span_id: str | None,
    started_at: datetime,
    duration_us: int,
    resource: Mapping[str, object] = NOTHING,
) -> LLMCall:
    """The call that a span of spendwatch's own speaks of.

    A value of the wrong type counts as not known. Raises KeyError when gen_ai.provider.name is missing: then it is
    not such a span.
    """
    values: dict[str, object] = {}
    for name, attr in _TEXT.items():
        values[attr] = _text(attributes.get(name))
    for name, attr in _INT.items():
        values[attr] = _int(attributes.get(name))
    for name, attr in _MONEY.items():
        values[attr] = money.parse_cost(attributes.get(name))
    provider_name = values.pop("provider_name")
    if not isinstance(provider_name, str):
        raise KeyError("gen_ai.provider.name")
    operation_name = values.pop("operation_name") or "chat"
    byok = attributes.get(IS_BYOK)
    return LLMCall(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent_span_id,
        started_at=started_at,
        duration_us=duration_us,
        time_to_first_chunk_us=_microseconds(attributes.get(TIME_TO_FIRST_CHUNK)),
        provider_name=provider_name,
        operation_name=str(operation_name),
        usage=TokenUsage(**{attr: _int(attributes.get(name)) for name, attr in _USAGE.items()}),
        cost_basis=_enum(CostBasis, attributes.get(COST_BASIS), CostBasis.UNPRICED),
        status=_enum(CallStatus, attributes.get(STATUS), CallStatus.OK),
        is_byok=byok if isinstance(byok, bool) else None,
        streamed=attributes.get(STREAM) is True,
        finish_reasons=_texts(attributes.get(FINISH_REASONS)),
        service_name=_text(resource.get(SERVICE_NAME)),
        tags=_tags(attributes),
        fingerprint=_fingerprint_from(attributes),
        attributes=_prefixed(attributes, ATTRIBUTES_PREFIX),
        source=_text(attributes.get(SOURCE)) or "sdk",
        **values,  # type: ignore[arg-type]  # the tables above pair each name with a field of the right type
    )


def _tags(attributes: Mapping[str, object]) -> Tags:
    values = {attr: _text(attributes.get(name)) for name, attr in _TAGS.items()}
    for name, attr in _TAG_MIRRORS.items():
        if values[attr] is None:
            values[attr] = _text(attributes.get(name))
    return Tags(**values, extra=_prefixed(attributes, TAGS_EXTRA_PREFIX))


def _fingerprint_from(attributes: Mapping[str, object]) -> Fingerprint | None:
    values: dict[str, object] = {}
    for name, attr in _FINGERPRINT.items():
        value = attributes.get(name)
        if attr in ("last_length", "messages", "response_length"):
            values[attr] = _int(value)
        elif attr == "last_is_error":
            values[attr] = value if isinstance(value, bool) else None
        else:
            values[attr] = _text(value)
    tools = []
    for item in _texts(attributes.get(FINGERPRINT_TOOLS)):
        parts = item.rsplit(":", 2)
        if len(parts) == 3:
            tools.append(ToolFingerprint(name=parts[0], arguments=parts[1], arguments_simhash=parts[2]))
    if not tools and all(value is None for value in values.values()):
        return None
    return Fingerprint(tools=tuple(tools), **values)  # type: ignore[arg-type]  # as above


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _microseconds(seconds: object) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return None
    return round(seconds * 1_000_000)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _prefixed(attributes: Mapping[str, object], prefix: str) -> Mapping[str, str]:
    found = {key[len(prefix) :]: value for key, value in attributes.items() if key.startswith(prefix)}
    return MappingProxyType({k: v for k, v in found.items() if isinstance(v, str)}) if found else NOTHING


_E = TypeVar("_E", CallStatus, CostBasis)


def _enum(kind: type[_E], value: object, default: _E) -> _E:
    try:
        return kind(str(value))
    except ValueError:
        return default
