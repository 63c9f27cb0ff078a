"""How the OpenTelemetry instrumentations of others name the facts of an LLM call: one table entry each.

An entry says how its spans are recognised, which of them are calls to a model (agent, workflow, tool and wrapper spans
repeat their children's usage and never are), and under which names the facts stand, best name first. The first entry
that recognises a span reads it. Never here: what to make of the values (call.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from collectors.otlp.spans import Span

CHAT, TEXT, EMBEDDINGS, RERANK = "chat", "text_completion", "embeddings", "rerank"

OPERATIONS: Mapping[str, str] = {
    "chat": CHAT,
    "completion": TEXT,
    "text_completion": TEXT,
    "generate_content": "generate_content",
    "responses": CHAT,
    "embedding": EMBEDDINGS,
    "embeddings": EMBEDDINGS,
    "rerank": RERANK,
    "image_generation": "image_generation",
    "speech": "speech",
    "transcription": "transcription",
}
"""What a dialect calls an operation that a model is paid for -> semconv's word. Any other (invoke_agent, execute_tool,
invoke_workflow, plan, retrieval, fetch_response, ...) is not a call to a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One instrumentation's way of writing. `names`: fact -> attribute names, best first."""

    name: str
    recognises: Callable[[Span], bool]
    operation: Callable[[Span], str | None]
    """semconv's word for what the span did, None when it is not a call to a model."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    input_includes_cache: bool | None = True
    """Whether the input tokens hold cache reads and writes; None: as the provider counts."""
    cost_is_charged: bool = False
    """Whether its cost is what was charged, also when it is 0. Else it is an estimate of the instrumentation."""
    provider: str | None = None
    """Who was called, when the dialect speaks of one provider alone: then `provider_name` is somebody else."""
    observer: str | None = None
    """What the calls' source says instead of otlp:<name>. Its resource is the observer, not the app."""


_GENAI: dict[str, tuple[str, ...]] = {
    "provider_name": ("gen_ai.provider.name", "gen_ai.system"),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "response_id": ("gen_ai.response.id",),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "total_tokens": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens"),
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.input_tokens.cached",
    ),
    "cache_write": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.input_tokens.cache_write",
    ),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "llm.usage.reasoning_tokens",
    ),
    "input_audio": ("gen_ai.usage.audio.input_tokens",),
    "output_audio": ("gen_ai.usage.audio.output_tokens",),
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
    "finish_reasons": ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason"),
    "first_chunk_s": ("gen_ai.response.time_to_first_chunk",),
    "streamed": ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming"),
    "service_tier": ("openai.response.service_tier", "gen_ai.openai.response.service_tier"),
    "server_address": ("server.address",),
    "server_port": ("server.port",),
    "http_status": ("http.response.status_code", "http.status_code"),
    "error_type": ("error.type",),
}


def _over(**first: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The GenAI names with a dialect's own in front."""
    return {**_GENAI, **{fact: names + _GENAI.get(fact, ()) for fact, names in first.items()}}


def _has(*names: str) -> Callable[[Span], bool]:
    return lambda span: any(name in span.attributes for name in names)


def _by(attribute: str, operations: Mapping[str, str]) -> Callable[[Span], str | None]:
    return lambda span: operations.get(str(span.attributes.get(attribute, "")).lower())


def _genai_operation(span: Span) -> str | None:
    attributes = span.attributes
    named = attributes.get("gen_ai.operation.name")
    if named is not None:
        return OPERATIONS.get(str(named).lower())
    # Before operation names there were only model calls with a system; agent frameworks' wrappers had no request model.
    if "gen_ai.tool.name" in attributes or "gen_ai.request.model" not in attributes:
        return None
    return CHAT if any(name in attributes for name in _GENAI["input_tokens"] + _GENAI["output_tokens"]) else None


def _traceloop_operation(span: Span) -> str | None:
    # Workflow, task, agent and tool spans; an LLM span has a request type or, newer, a GenAI operation instead.
    if "traceloop.span.kind" in span.attributes:
        return None
    kind = span.attributes.get("llm.request.type")
    return _genai_operation(span) if kind is None else OPERATIONS.get(str(kind).lower())


_VERCEL_STEPS: Mapping[str, str] = {"doGenerate": CHAT, "doStream": CHAT, "doEmbed": EMBEDDINGS, "doRerank": RERANK}


def _vercel_operation(span: Span) -> str | None:
    # "ai.generateText" wraps its steps "ai.generateText.doGenerate" and repeats the sum of their usage.
    attributes = span.attributes
    named = str(attributes.get("ai.operationId") or attributes.get("operation.name") or span.name)
    return _VERCEL_STEPS.get(named.split(" ", 1)[0].rsplit(".", 1)[-1])


def _broadcast_operation(span: Span) -> str | None:
    # Beside the generation come its attempts, which carry its id with a suffix ("gen-…:attempt-0").
    if ":" in str(span.attributes.get("gen_ai.response.id", ":")):
        return None
    return _genai_operation(span)


def _broadcast(name: str) -> tuple[str, ...]:
    return f"trace.metadata.openrouter_generation.{name}", f"span.metadata.openrouter_generation.{name}"


DIALECTS: tuple[Dialect, ...] = (
    # OpenRouter's Broadcast (openrouter.ai/docs/guides/features/broadcast): its own account of each generation.
    Dialect(
        name="broadcast",
        observer="broadcast",
        recognises=lambda span: span.scope == "openrouter",
        operation=_broadcast_operation,
        provider="openrouter",
        cost_is_charged=True,
        names=_over(
            serving_provider=("trace.metadata.openrouter.provider_name",),
            output_image=("gen_ai.usage.output_tokens.image",),
            cost=(*_broadcast("usage"), "gen_ai.usage.total_cost"),
            upstream_cost=_broadcast("byok_usage_inference"),
            is_byok=_broadcast("is_byok"),
            streamed=_broadcast("streamed"),
            first_chunk_ms=("trace.metadata.openrouter.first_token_ms",),
            session=("session.id",),
        ),
    ),
    Dialect(
        name="vercel",
        recognises=lambda span: span.name.startswith("ai.") or _has("ai.operationId", "ai.model.id")(span),
        operation=_vercel_operation,
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
            reasoning=("ai.usage.outputTokenDetails.reasoningTokens", "ai.usage.reasoningTokens"),
            session=("ai.telemetry.metadata.sessionId",),
            user=("ai.telemetry.metadata.userId",),
            agent=("gen_ai.agent.name", "ai.telemetry.functionId"),
            finish_reasons=("ai.response.finishReason",),
            first_chunk_ms=("ai.response.msToFirstChunk",),
        ),
    ),
    Dialect(
        name="openinference",
        recognises=_has("openinference.span.kind"),
        operation=_by("openinference.span.kind", {"llm": CHAT, "embedding": EMBEDDINGS, "reranker": RERANK}),
        input_includes_cache=None,
        names=_over(
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
        ),
    ),
    Dialect(
        name="traceloop",
        recognises=_has("traceloop.span.kind", "traceloop.workflow.name", "traceloop.entity.name", "llm.request.type"),
        operation=_traceloop_operation,
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
    Dialect(
        name="genai",
        recognises=_has("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system"),
        operation=_genai_operation,
        names=_GENAI,
    ),
)

_MARKS = (
    "ai.operationId", "operation.name", "openinference.span.kind", "traceloop.span.kind", "traceloop.workflow.name",
    "traceloop.entity.name", "llm.request.type", "gen_ai.operation.name", "gen_ai.tool.name",
)  # fmt: skip

_WANTED = frozenset(_MARKS).union(*(names for dialect in DIALECTS for names in dialect.names.values()))
_RESOURCE_WANTED = frozenset(("service.name", *_GENAI["environment"]))


def wanted(name: str) -> bool:
    """Whether a span's attribute of this name is read at all."""
    return name in _WANTED or name.startswith("spendwatch.")


def resource_wanted(name: str) -> bool:
    """Whether a resource's attribute of this name is read at all."""
    return name in _RESOURCE_WANTED or name.startswith("spendwatch.tags.")


def dialect_of(span: Span) -> Dialect | None:
    """The dialect that the span is written in, None when it speaks of no model at all."""
    return next((dialect for dialect in DIALECTS if dialect.recognises(span)), None)
