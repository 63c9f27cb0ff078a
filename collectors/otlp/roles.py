"""Which spans are calls to a model, by the words of each instrumentation.

Agent, workflow, tool and wrapper spans repeat the usage of the calls below them and are never calls. Each function
gives semconv's word for what a span did, None when no model is paid for it. Never here: what was used, what it cost.
"""

from collections.abc import Callable, Mapping

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

_LITELLM_CALLS: Mapping[str, str] = {
    **OPERATIONS,
    "completion": CHAT,
    "completions": CHAT,
    "anthropic_messages": CHAT,
    "generate_content_stream": "generate_content",
    "image_edit": "image_generation",
    "moderation": "moderation",
}
"""LiteLLM's call types, without the "a" of their asynchronous twins."""

INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")

MARKS = (
    "ai.operationId", "operation.name", "openinference.span.kind", "traceloop.span.kind", "traceloop.workflow.name",
    "traceloop.entity.name", "llm.request.type", "gen_ai.operation.name", "gen_ai.tool.name", "logfire.span_type",
    "langfuse.observation.type", "litellm.call_type",
)  # fmt: skip
"""The attributes that decide about roles. They are read of every span."""


def by(attribute: str, operations: Mapping[str, str]) -> Callable[[Span], str | None]:
    """The operation that one attribute names."""
    return lambda span: operations.get(str(span.attributes.get(attribute, "")).lower())


def genai(span: Span) -> str | None:
    """OpenTelemetry's own words, new and old."""
    attributes = span.attributes
    # Logfire tells its backend that a span has begun, with a copy of what is known by then.
    if attributes.get("logfire.span_type") == "pending_span":
        return None
    named = attributes.get("gen_ai.operation.name")
    if named is not None:
        operation = OPERATIONS.get(str(named).lower())
        # The Vercel AI SDK since 7 ("gen_ai"): an embedding's wrapper is named like the request in it, without usage.
        return None if operation == EMBEDDINGS and span.scope == "gen_ai" and not _counted(span) else operation
    # Before operation names there were only model calls with a system; agent frameworks' wrappers had no request model.
    if "gen_ai.tool.name" in attributes or "gen_ai.request.model" not in attributes:
        return None
    return CHAT if _counted(span) else None


def _counted(span: Span) -> bool:
    return any(name in span.attributes for name in INPUT_TOKENS + OUTPUT_TOKENS)


def logfire(span: Span) -> str | None:
    """Logfire's spans of an SDK's calls, and Pydantic AI's.

    Of a stream, Logfire's span ends when the stream begins and knows nothing of it; a log at its end has the usage.
    """
    operation = genai(span)
    if operation is None or not span.scope.startswith("logfire") or span.failed:
        return operation
    return operation if _counted(span) or "gen_ai.response.id" in span.attributes else None


def traceloop(span: Span) -> str | None:
    """Workflow, task, agent and tool spans have a kind; an LLM span a request type or, newer, a GenAI operation."""
    if "traceloop.span.kind" in span.attributes:
        return None
    kind = span.attributes.get("llm.request.type")
    return genai(span) if kind is None else OPERATIONS.get(str(kind).lower())


_VERCEL_STEPS: Mapping[str, str] = {"doGenerate": CHAT, "doStream": CHAT, "doEmbed": EMBEDDINGS, "doRerank": RERANK}


def vercel(span: Span) -> str | None:
    """The Vercel AI SDK up to 6: "ai.generateText" wraps its steps "ai.generateText.doGenerate" and sums them up."""
    attributes = span.attributes
    named = str(attributes.get("ai.operationId") or attributes.get("operation.name") or span.name)
    return _VERCEL_STEPS.get(named.split(" ", 1)[0].rsplit(".", 1)[-1])


def litellm(span: Span) -> str | None:
    """LiteLLM names its own function ("acompletion"); the provider's raw request below it has no name at all."""
    for name in ("gen_ai.operation.name", "litellm.call_type", "llm.request.type"):
        named = str(span.attributes.get(name) or "").lower()
        found = _LITELLM_CALLS.get(named) or _LITELLM_CALLS.get(named.removeprefix("a"))
        if found is not None:
            return found
    return None


def broadcast(span: Span) -> str | None:
    """Beside OpenRouter's generation come its attempts, which carry its id with a suffix ("gen-…:attempt-0")."""
    if ":" in str(span.attributes.get("gen_ai.response.id", ":")):
        return None
    named = span.attributes.get("gen_ai.operation.name")
    # A generation that was left early may say no more than its id.
    return CHAT if named is None else OPERATIONS.get(str(named).lower())
