"""What one LLM call is: the facts recorded about it, in the words of OpenTelemetry's GenAI conventions.

Every other room speaks these types. Frozen, keyword-only values; times are aware UTC, durations whole microseconds,
money Decimal USD. None means "not known", which is never the same as 0. Never here: I/O, Django, a clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from types import MappingProxyType

from spendwatch.quick import quick

NOTHING: Mapping[str, str] = MappingProxyType({})


class CallStatus(StrEnum):
    """How the call ended for the app: completed, failed, or left before its end."""

    OK = "ok"
    ERROR = "error"
    ABORTED = "aborted"


class CostBasis(StrEnum):
    """Where the effective cost of a call comes from."""

    UNPRICED = "unpriced"
    LISTED = "listed"
    REPORTED = "reported"
    SETTLED = "settled"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one call. The two totals include their parts: input holds cache reads and writes, output reasoning."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    """As the provider stated it; never computed here."""
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    """All cache writes, whatever their lifetime."""
    cache_write_1h_input_tokens: int | None = None
    """The part of the cache writes kept for an hour (dearer at Anthropic)."""
    reasoning_output_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_image_tokens: int | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFingerprint:
    """One tool call that the reply asks for: its name ("" when names are not kept), keyed hashes of its arguments."""

    name: str
    arguments: str
    arguments_simhash: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Keyed hashes and sizes of a call's content: equality can be seen, content can't. Hex strings of 64 bits.

    system: the system prompt. prefix: system + tools + all messages but the last. last: the last two messages, without
    a system prompt that stands before the first one; last_role, last_length (characters), last_is_error, last_simhash
    and last_normalised (numbers, times, ids masked before hashing) speak of the last one. messages: their count. tools:
    what the reply asks for. response: the reply.
    """

    system: str | None = None
    prefix: str | None = None
    last: str | None = None
    last_role: str | None = None
    last_simhash: str | None = None
    last_length: int | None = None
    last_is_error: bool | None = None
    last_normalised: str | None = None
    messages: int | None = None
    tools: tuple[ToolFingerprint, ...] = ()
    response: str | None = None
    response_simhash: str | None = None
    response_length: int | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Who a call is for, as the app said with tags(). `extra` holds any further names, values as text."""

    team: str | None = None
    project: str | None = None
    agent: str | None = None
    session: str | None = None
    user: str | None = None
    feature: str | None = None
    environment: str | None = None
    extra: Mapping[str, str] = field(default_factory=lambda: NOTHING)


TAG_NAMES: tuple[str, ...] = ("team", "project", "agent", "session", "user", "feature", "environment")


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class LLMCall:
    """One HTTP call to an LLM provider, as an observer saw it."""

    trace_id: str
    """32 lower-case hex digits."""
    span_id: str
    """16 lower-case hex digits."""
    parent_span_id: str | None = None
    started_at: datetime
    duration_us: int
    time_to_first_chunk_us: int | None = None

    provider_name: str
    """Who was called: a gen_ai.provider.name ("openai", "anthropic", "openrouter", ...)."""
    serving_provider: str | None = None
    """Who served it behind a gateway, as the reply said ("Azure", "Anthropic")."""
    operation_name: str = "chat"
    request_model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    server_address: str | None = None
    server_port: int | None = None

    usage: TokenUsage = TokenUsage()
    reported_cost: Decimal | None = None
    """What the reply says was charged by whoever was called (OpenRouter: credits, 1 credit = 1 USD)."""
    upstream_cost: Decimal | None = None
    """What the serving provider charges for it. Owed on top of reported_cost only when is_byok."""
    listed_cost: Decimal | None = None
    """Tokens valued with the observer's price book."""
    cost_basis: CostBasis = CostBasis.UNPRICED
    price_version: str | None = None
    is_byok: bool | None = None
    service_tier: str | None = None

    status: CallStatus = CallStatus.OK
    http_status: int | None = None
    error_type: str | None = None
    finish_reasons: tuple[str, ...] = ()
    streamed: bool = False

    service_name: str | None = None
    tags: Tags = Tags()
    key_hash: str | None = None
    """SHA-256 hex of the API key: what OpenRouter calls the key's hash."""
    fingerprint: Fingerprint | None = None
    wire_format: str | None = None
    """The reader that understood the reply ("openai_chat")."""
    attributes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """Further facts, as text."""
    source: str = "sdk"
    """The observer: sdk, otlp:<dialect>, broadcast, csv."""


def call_id(call: LLMCall) -> int:
    """The identity of the call, 64 bits: the provider's id of the reply when there is one, else trace and span id.

    The same generation seen by several observers has one identity. Two different calls share one only by a hash
    collision (readers compare the ids themselves before they merge).
    """
    key = f"{call.provider_name}\0{call.response_id}" if call.response_id else f"{call.trace_id}\0{call.span_id}"
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCall:
    """A call and what it cost, three layers deep (each USD or None when unknown).

    list_cost: every input token at the requested model's input rate, no cache, no routing. routed_cost: the same at
    the price of the endpoint that served. effective_cost: what the call cost, see cost_basis.
    """

    call: LLMCall
    list_cost: Decimal | None = None
    routed_cost: Decimal | None = None
    effective_cost: Decimal | None = None
    cost_basis: CostBasis = CostBasis.UNPRICED
    price_version: str | None = None
    revision: int = 0
    """Later, edited and settled facts about the same call arrive with a higher revision."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of time [start, end), both aware UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() is None or self.end.utcoffset() is None:
            raise ValueError(f"a window needs aware times, got {self.start!r} to {self.end!r}")


DIMENSIONS: tuple[str, ...] = (
    "environment", "team", "project", "service_name", "agent", "feature", "user_id", "session_id",
    "provider_name", "serving_provider", "request_model", "response_model", "key_hash", "operation_name", "status",
    "cost_basis",
)  # fmt: skip
"""What spend can be filtered and grouped by; the names are columns of llm_calls."""

Scope = Mapping[str, Sequence[str]]
"""A filter on calls: dimension name -> accepted values (any of them). Empty: every call."""


def check_scope(scope: Scope) -> None:
    """Raise ValueError when a name is not a dimension of spend, or its values are not a list of text."""
    for name, values in scope.items():
        if name not in DIMENSIONS:
            raise ValueError(f"{name!r} is not a dimension of spend; use one of {', '.join(DIMENSIONS)}")
        if isinstance(values, str) or not all(isinstance(v, str) for v in values):
            raise ValueError(f"scope {name!r}: expected a list of text values, found {values!r}")
