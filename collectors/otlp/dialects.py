"""How the OpenTelemetry instrumentations of others name the facts of an LLM call: one table entry each.

An entry says how its spans are recognised, which of them are calls to a model (roles.py), and under which names the
facts stand, best name first. The first entry that recognises a span reads it. Each is tested with spans that the real
package sent (tests/collectors/otlp/data). Never here: what to make of the values (call.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from collectors.otlp import roles
from collectors.otlp.roles import CHAT, EMBEDDINGS, INPUT_TOKENS, OUTPUT_TOKENS, RERANK
from collectors.otlp.spans import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One instrumentation's way of writing. `names`: fact -> attribute names, best first."""

    name: str
    recognises: Callable[[Span], bool]
    operation: Callable[[Span], str | None]
    """semconv's word for what the span did, None when it is not a call to a model."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unfold: tuple[str, ...] = ()
    """Attributes that hold JSON: `names` may name what is in them, as attribute.path (unfolding.py)."""
    input_includes_cache: bool | None = True
    """Whether the input tokens hold cache reads and writes; None: as the provider counts."""
    cost_is_charged: bool = False
    """Whether its cost is what was charged, also when it is 0. Else it is an estimate of the instrumentation."""
    replayed: Callable[[Mapping[str, object]], bool] = lambda _: False
    """Whether the reply came out of the instrumentation's own cache: no provider was asked, nothing was charged."""
    provider: str | None = None
    """Who was called, when the dialect speaks of one provider alone: then `provider_name` is somebody else."""
    observer: str | None = None
    """What the calls' source says instead of otlp:<name>. Its resource is the observer, not the app."""


_GENAI: dict[str, tuple[str, ...]] = {
    "provider_name": ("gen_ai.provider.name", "gen_ai.system"),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "response_id": ("gen_ai.response.id",),
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "total_tokens": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens"),
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.input_tokens.cached",
    ),
    "cache_write": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "gen_ai.usage.input_tokens.cache_write",
    ),
    # The Anthropic SDK's own span.
    "cache_write_1h": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "llm.usage.reasoning_tokens",
    ),
    "input_audio": ("gen_ai.usage.audio.input_tokens", "gen_ai.usage.details.input_audio_tokens"),
    "output_audio": ("gen_ai.usage.audio.output_tokens", "gen_ai.usage.details.output_audio_tokens"),
    "input_image": ("gen_ai.usage.image.input_tokens",),
    "output_image": ("gen_ai.usage.image.output_tokens",),
    "cost": (
        "gen_ai.usage.cost.amount",
        "gen_ai.usage.cost",
        "gen_ai.usage.cost_usd",
        "gen_ai.usage.total_cost",
        "gen_ai.cost.total_cost",
        "gen_ai.cost",
        "operation.cost",
        "llm.usage.cost",
    ),
    "cost_currency": ("gen_ai.usage.cost.currency",),
    "cost_source": ("gen_ai.usage.cost.source",),
    "session": ("gen_ai.conversation.id", "session.id"),
    "user": ("user.id", "enduser.id"),
    "agent": ("gen_ai.agent.name", "agent_name"),
    "environment": ("deployment.environment.name", "deployment.environment"),
    "finish_reasons": (
        "gen_ai.response.finish_reasons",
        "gen_ai.response.finish_reason",
        "anthropic.message.stop_reason",
    ),
    "first_chunk_s": ("gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk"),
    "streamed": ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming"),
    "service_tier": (
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
        "anthropic.response.service_tier",
    ),
    "server_address": ("server.address",),
    "server_port": ("server.port",),
    "base_url": ("gen_ai.openai.api_base",),
    "http_status": ("http.response.status_code", "http.status_code"),
    "error_type": ("error.type",),
}


def _over(**first: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The GenAI names with a dialect's own in front."""
    return {**_GENAI, **{fact: names + _GENAI.get(fact, ()) for fact, names in first.items()}}


def _in(attribute: str, *paths: str) -> tuple[str, ...]:
    """What an unfolded attribute holds under these paths."""
    return tuple(f"{attribute}.{path}" for path in paths)


def _has(*names: str) -> Callable[[Span], bool]:
    return lambda span: any(name in span.attributes for name in names)


def _scope(*beginnings: str) -> Callable[[Span], bool]:
    return lambda span: span.scope.startswith(beginnings)


def _either(first: Callable[[Span], bool], second: Callable[[Span], bool]) -> Callable[[Span], bool]:
    return lambda span: first(span) or second(span)


def _generation(name: str) -> tuple[str, ...]:
    return f"trace.metadata.openrouter_generation.{name}", f"span.metadata.openrouter_generation.{name}"


_HIDDEN, _USAGE_OBJECT = "hidden_params", "metadata.usage_object"
_CACHE_HIT = (f"{_HIDDEN}.cache_hit", "metadata.cache_hit", "litellm.cache_hit", "cache_hit")


def _litellm_replayed(attributes: Mapping[str, object]) -> bool:
    if any(str(attributes.get(name)).lower() == "true" for name in _CACHE_HIT):
        return True
    # Without the flag: it names the key in its cache, and a cost of nothing.
    return bool(attributes.get(f"{_HIDDEN}.cache_key")) and attributes.get(f"{_HIDDEN}.response_cost") in (0, None)


def _names_of_openinference() -> dict[str, tuple[str, ...]]:
    return _over(
        provider_name=("llm.provider", "llm.system"),
        request_model=("llm.request.model_name", "llm.model_name", "embedding.model_name", "reranker.model_name"),
        response_model=("llm.response.model_name",),
        input_tokens=("llm.token_count.prompt",),
        output_tokens=("llm.token_count.completion",),
        total_tokens=("llm.token_count.total",),
        cache_read=("llm.token_count.prompt_details.cache_read", "llm.token_count.prompt_details.cache_input"),
        cache_write=("llm.token_count.prompt_details.cache_write",),
        reasoning=("llm.token_count.completion_details.reasoning",),
        input_audio=("llm.token_count.prompt_details.audio",),
        output_audio=("llm.token_count.completion_details.audio",),
        cost=("llm.cost.total",),
        session=("session.id",),
        agent=("agent.name",),
        finish_reasons=("llm.finish_reason",),
    )


_OPENINFERENCE = "openinference.instrumentation."
_openinference_role = roles.by("openinference.span.kind", {"llm": CHAT, "embedding": EMBEDDINGS, "reranker": RERANK})

_LANGFUSE_USAGE, _LANGFUSE_COST = "langfuse.observation.usage_details", "langfuse.observation.cost_details"
_VERCEL_PROVIDER = "ai.response.providerMetadata"
_LOGFIRE_RAW = "gen_ai.usage.raw"

DIALECTS: tuple[Dialect, ...] = (
    # OpenRouter's Broadcast (openrouter.ai/docs/guides/features/broadcast): its own account of each generation.
    Dialect(
        name="broadcast",
        observer="broadcast",
        recognises=lambda span: span.scope == "openrouter",
        operation=roles.broadcast,
        provider="openrouter",
        cost_is_charged=True,
        names=_over(
            serving_provider=("trace.metadata.openrouter.provider_name",),
            output_image=("gen_ai.usage.output_tokens.image",),
            cost=(*_generation("usage"), "gen_ai.usage.total_cost"),
            upstream_cost=_generation("byok_usage_inference"),
            is_byok=_generation("is_byok"),
            streamed=_generation("streamed"),
            first_chunk_ms=("trace.metadata.openrouter.first_token_ms",),
            session=("session.id",),
            status_message=("span.status_message",),
            key_name=("trace.metadata.openrouter.api_key_name",),
        ),
    ),
    # LiteLLM's callback "otel", its first writing and the one behind LITELLM_OTEL_V2. The cost is LiteLLM's own sum.
    Dialect(
        name="litellm",
        recognises=_either(lambda span: span.scope == "litellm", _has("litellm.call_type")),
        operation=roles.litellm,
        unfold=(_HIDDEN, _USAGE_OBJECT),
        replayed=_litellm_replayed,
        names=_over(
            provider_name=("gen_ai.provider.name", "gen_ai.system", "llm.provider", "error.llm_provider"),
            provider_model=("litellm.provider.model",),
            cache_read=_in(_USAGE_OBJECT, "prompt_tokens_details.cached_tokens", "cache_read_input_tokens"),
            cache_write=_in(
                _USAGE_OBJECT,
                "prompt_tokens_details.cache_creation_tokens",
                "prompt_tokens_details.cache_write_tokens",
                "cache_creation_input_tokens",
            ),
            reasoning=_in(_USAGE_OBJECT, "completion_tokens_details.reasoning_tokens"),
            cost=("litellm.cost.total", "gen_ai.cost.total_cost"),
            team=("metadata.user_api_key_team_alias", "litellm.team.alias", "metadata.team_alias"),
            user=(
                "metadata.user_api_key_end_user_id",
                "metadata.user_api_key_user_id",
                "litellm.end_user.id",
                "llm.user",
            ),
            streamed=("litellm.request.streaming", "llm.is_streaming"),
            base_url=_in(_HIDDEN, "api_base"),
        ),
    ),
    # Langfuse's own SDKs. Its usage has every token in one bucket only ("input" is without what was cached), unless it
    # passes on what a provider's SDK said.
    Dialect(
        name="langfuse",
        recognises=_has("langfuse.observation.type"),
        operation=roles.by("langfuse.observation.type", {"generation": CHAT, "embedding": EMBEDDINGS}),
        unfold=(_LANGFUSE_USAGE, _LANGFUSE_COST, "langfuse.observation.model.parameters"),
        input_includes_cache=None,
        names=_over(
            # As its handler for LangChain knows it.
            provider_name=("langfuse.observation.metadata.ls_provider",),
            request_model=("langfuse.observation.model.name",),
            input_tokens=_in(_LANGFUSE_USAGE, "prompt_tokens", "promptTokens", "input_tokens"),
            uncached_input=_in(_LANGFUSE_USAGE, "input"),
            output_tokens=_in(_LANGFUSE_USAGE, "completion_tokens", "completionTokens", "output_tokens"),
            visible_output=_in(_LANGFUSE_USAGE, "output"),
            total_tokens=_in(_LANGFUSE_USAGE, "total_tokens", "totalTokens", "total"),
            cache_read=_in(
                _LANGFUSE_USAGE,
                "prompt_tokens_details.cached_tokens",
                "input_tokens_details.cached_tokens",
                "cache_read_input_tokens",
                "input_cached_tokens",
                "input_cache_read",
                "cache_read",
            ),
            cache_write=_in(
                _LANGFUSE_USAGE,
                "cache_creation_input_tokens",
                "cache_write_input_tokens",
                "input_cache_creation",
                "input_cache_write",
                "cache_write",
            ),
            cache_write_1h=_in(_LANGFUSE_USAGE, "cache_creation.ephemeral_1h_input_tokens"),
            reasoning=_in(
                _LANGFUSE_USAGE,
                "completion_tokens_details.reasoning_tokens",
                "output_tokens_details.reasoning_tokens",
                "output_reasoning_tokens",
                "output_reasoning",
            ),
            input_audio=_in(_LANGFUSE_USAGE, "prompt_tokens_details.audio_tokens", "input_audio_tokens", "input_audio"),
            output_audio=_in(
                _LANGFUSE_USAGE, "completion_tokens_details.audio_tokens", "output_audio_tokens", "output_audio"
            ),
            cost=_in(_LANGFUSE_COST, "total"),
            session=("langfuse.session.id", "session.id"),
            user=("langfuse.user.id", "user.id"),
            environment=("langfuse.environment",),
            service_tier=_in("langfuse.observation.model.parameters", "service_tier"),
            first_chunk_at=("langfuse.observation.completion_start_time",),
            level=("langfuse.observation.level",),
        ),
    ),
    Dialect(
        name="vercel",
        recognises=lambda span: span.name.startswith("ai.") or _has("ai.operationId", "ai.model.id")(span),
        operation=roles.vercel,
        unfold=(_VERCEL_PROVIDER,),
        names=_over(
            provider_name=("ai.model.provider",),
            request_model=("ai.model.id",),
            response_model=("ai.response.model",),
            response_id=("ai.response.id",),
            input_tokens=("ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens"),
            output_tokens=("ai.usage.outputTokens", "ai.usage.completionTokens"),
            total_tokens=("ai.usage.totalTokens",),
            cache_read=("ai.usage.inputTokenDetails.cacheReadTokens", "ai.usage.cachedInputTokens"),
            cache_write=("ai.usage.inputTokenDetails.cacheWriteTokens",),
            cache_write_1h=_in(_VERCEL_PROVIDER, "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"),
            reasoning=("ai.usage.outputTokenDetails.reasoningTokens", "ai.usage.reasoningTokens"),
            charged_cost=_in(_VERCEL_PROVIDER, "openrouter.usage.cost"),
            serving_provider=_in(_VERCEL_PROVIDER, "openrouter.provider"),
            service_tier=_in(_VERCEL_PROVIDER, "openai.serviceTier", "anthropic.usage.service_tier"),
            session=("ai.telemetry.metadata.sessionId",),
            user=("ai.telemetry.metadata.userId",),
            agent=("gen_ai.agent.name", "ai.telemetry.functionId"),
            finish_reasons=("ai.response.finishReason",),
            first_chunk_ms=("ai.response.msToFirstChunk",),
        ),
    ),
    # What a framework counts holds the cache, by OpenInference's convention; what is taken from a provider's own SDK
    # was once passed on as that counts.
    Dialect(
        name="openinference",
        recognises=lambda span: (
            span.scope.startswith(_OPENINFERENCE)
            and not span.scope.endswith((".anthropic", ".bedrock"))
            and "openinference.span.kind" in span.attributes
        ),
        operation=_openinference_role,
        names=_names_of_openinference(),
    ),
    Dialect(
        name="openinference",
        recognises=_has("openinference.span.kind"),
        operation=_openinference_role,
        input_includes_cache=None,
        names=_names_of_openinference(),
    ),
    Dialect(
        name="traceloop",
        recognises=_has(
            "traceloop.span.kind",
            "traceloop.workflow.name",
            "traceloop.entity.name",
            "llm.request.type",
            "gen_ai.is_streaming",
        ),
        operation=roles.traceloop,
        input_includes_cache=None,
        names=_over(
            input_tokens=("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"),
            output_tokens=(
                "gen_ai.usage.output_tokens",
                "gen_ai.usage.completion_tokens",
                "llm.usage.completion_tokens",
            ),
            session=(
                "traceloop.association.properties.session_id",
                "traceloop.association.properties.thread_id",
            ),
            user=("traceloop.association.properties.user_id",),
            finish_reasons=("gen_ai.response.finish_reasons", "llm.response.finish_reason"),
        ),
    ),
    # Pydantic AI, and Logfire's instrumentations of the providers' SDKs.
    Dialect(
        name="logfire",
        recognises=_scope("logfire", "pydantic-ai"),
        operation=roles.logfire,
        unfold=(_LOGFIRE_RAW,),
        names=_over(
            reasoning=_in(
                _LOGFIRE_RAW,
                "completion_tokens_details.reasoning_tokens",
                "output_tokens_details.reasoning_tokens",
            ),
            cache_write_1h=_in(_LOGFIRE_RAW, "cache_creation.ephemeral_1h_input_tokens"),
            # Of a stream's log, which has no duration of its own.
            duration_s=("duration",),
        ),
    ),
    # OpenLIT writes OpenTelemetry's names, but counts as the provider does, and 0 where it knows no price.
    Dialect(
        name="openlit",
        recognises=_scope("openlit."),
        operation=roles.genai,
        input_includes_cache=None,
        names=_GENAI,
    ),
    Dialect(
        name="genai",
        recognises=_has("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system"),
        operation=roles.genai,
        names=_GENAI,
    ),
)

PACKED = frozenset[str]().union(*(dialect.unfold for dialect in DIALECTS))
"""Attributes of which only parts are read. They are not remembered whole."""

MARKS = (*roles.MARKS, *_CACHE_HIT, *sorted(PACKED))
"""Attributes that decide how the others are read."""

NAMES = frozenset(MARKS).union(*(names for dialect in DIALECTS for names in dialect.names.values()))
RESOURCE_NAMES = frozenset(("service.name", *_GENAI["environment"]))


def wanted(name: str) -> bool:
    """Whether a span's attribute of this name is read at all."""
    return name in NAMES or name.startswith("spendwatch.")


def resource_wanted(name: str) -> bool:
    """Whether a resource's attribute of this name is read at all."""
    return name in RESOURCE_NAMES or name.startswith("spendwatch.tags.")


def dialect_of(span: Span) -> Dialect | None:
    """The dialect that the span is written in, None when it speaks of no model at all."""
    return next((dialect for dialect in DIALECTS if dialect.recognises(span)), None)
