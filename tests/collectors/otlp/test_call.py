"""Spans -> calls: our own come back whole, other instrumentations' by the dialect table, others not at all."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from collectors.otlp import call as call_module
from collectors.otlp import dialects, otlp_json, protobuf
from collectors.otlp.limits import Limits
from collectors.otlp.spans import Rejected
from spendwatch.calls import CallStatus, CostBasis, Fingerprint, LLMCall, Tags, TokenUsage, ToolFingerprint
from tests.collectors.otlp import otlp

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)

WHOLE = LLMCall(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    parent_span_id="00f067aa0ba902b7",
    started_at=NOW - timedelta(microseconds=7),
    duration_us=1_234_567,
    time_to_first_chunk_us=250_001,
    provider_name="openrouter",
    serving_provider="Azure",
    operation_name="chat",
    request_model="openai/gpt-4.1-mini",
    response_model="openai/gpt-4.1-mini-2025-04-14",
    response_id="gen-1763769600-Ab3",
    server_address="openrouter.ai",
    server_port=443,
    usage=TokenUsage(
        input_tokens=10240, output_tokens=310, total_tokens=10550, cache_read_input_tokens=8192,
        cache_write_input_tokens=64, cache_write_1h_input_tokens=32, reasoning_output_tokens=100,
        input_audio_tokens=1, output_audio_tokens=2, input_image_tokens=3, output_image_tokens=4,
    ),
    reported_cost=Decimal("0.0021344"),
    upstream_cost=Decimal("0.002"),
    listed_cost=Decimal("0.00213441"),
    cost_basis=CostBasis.REPORTED,
    price_version="2026-11-20",
    is_byok=False,
    service_tier="flex",
    status=CallStatus.ABORTED,
    http_status=200,
    error_type="httpx.ReadError",
    finish_reasons=("stop", "length"),
    streamed=True,
    service_name="checkout",
    tags=Tags(
        team="search", project="shop", agent="crawler", session="s-1", user="u-1", feature="index",
        environment="production", extra={"ticket": "T-1"},
    ),
    key_hash="ab" * 32,
    fingerprint=Fingerprint(
        system="0011223344556677", prefix="1011223344556677", last="2011223344556677", last_role="tool",
        last_simhash="3011223344556677", last_length=12, last_is_error=True, last_normalised="4011223344556677",
        messages=5, tools=(ToolFingerprint(name="search:web", arguments="a" * 16, arguments_simhash="b" * 16),),
        response="5011223344556677", response_simhash="6011223344556677", response_length=99,
    ),
    wire_format="openai_chat",
    attributes={"note": "kept"},
)  # fmt: skip

READERS = {
    "protobuf": lambda message: protobuf.read(message.SerializeToString(), **_how()),
    "json": lambda message: otlp_json.read(otlp.json_body(message), **_how()),
}


def _how() -> dict[str, Any]:
    return {"limits": Limits(), "wanted": dialects.wanted, "resource_wanted": dialects.resource_wanted}


def read_span(
    span: trace_pb2.Span,
    *,
    encoding: str = "protobuf",
    scope: str = "",
    project: str = "shop",
    resource: Mapping[str, object] | None = None,
) -> LLMCall | Rejected | None:
    (found,) = READERS[encoding](otlp.request([span], scope=scope, resource=resource))
    return found if isinstance(found, Rejected) else call_module.read(found, project=project, now=NOW)


def foreign(attributes: Mapping[str, object], **how: Any) -> LLMCall:
    name = how.pop("name", "chat")
    found = read_span(otlp.span(name, attributes=attributes, at=NOW), **how)
    assert isinstance(found, LLMCall), found
    return found


@pytest.mark.parametrize("encoding", READERS)
def test_a_call_of_our_own_sdk_comes_back_equal(encoding: str) -> None:
    assert read_span(otlp.own_span(WHOLE), encoding=encoding, scope="spendwatch") == WHOLE


def test_the_project_is_the_tokens_and_what_the_app_said_is_kept_beside_it() -> None:
    found = read_span(otlp.own_span(WHOLE), scope="spendwatch", project="billing")
    assert found == replace(
        WHOLE, tags=replace(WHOLE.tags, project="billing"), attributes={"note": "kept", "tagged_project": "shop"}
    )


def test_what_the_process_says_of_itself_fills_tags_that_the_call_lacks() -> None:
    bare = replace(WHOLE, tags=Tags(agent="crawler"))
    resource = {
        "service.name": "checkout",
        "deployment.environment.name": "staging",
        "spendwatch.tags.team": "search",
        "spendwatch.tags.agent": "somebody",
    }
    found = read_span(otlp.own_span(bare), scope="spendwatch", resource=resource)
    assert isinstance(found, LLMCall)
    assert found.tags == Tags(team="search", project="shop", agent="crawler", environment="staging")


# dialect -> (span name, attributes, what is read of it)
DIALECTS: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "genai": (
        "chat claude-sonnet-4-5",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "gen_ai.response.id": "msg_1",
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.output_tokens": 200,
            "gen_ai.usage.cache_read.input_tokens": 600,
            "gen_ai.usage.cache_write.input_tokens": 100,
            "gen_ai.usage.reasoning.output_tokens": 50,
            "gen_ai.response.finish_reasons": ["end_turn"],
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.request.stream": True,
            "gen_ai.conversation.id": "s-1",
            "gen_ai.agent.name": "crawler",
            "server.address": "api.anthropic.com",
            "server.port": 443,
            "gen_ai.input.messages": '[{"role": "user", "content": "secret"}]',
        },
        {
            "provider_name": "anthropic",
            "request_model": "claude-sonnet-4-5",
            "response_model": "claude-sonnet-4-5-20250929",
            "response_id": "msg_1",
            "usage": TokenUsage(
                input_tokens=1000, output_tokens=200, cache_read_input_tokens=600, cache_write_input_tokens=100,
                reasoning_output_tokens=50,
            ),
            "finish_reasons": ("end_turn",),
            "time_to_first_chunk_us": 250_000,
            "streamed": True,
            "tags": Tags(project="shop", session="s-1", agent="crawler"),
            "server_port": 443,
            "attributes": {"usage_semantics": "inclusive: dialect"},
        },
    ),
    "genai of 2024": (
        "chat gpt-4o",
        {
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.prompt_tokens": 10,
            "gen_ai.usage.completion_tokens": 20,
            "gen_ai.usage.cache_creation.input_tokens": 0,
            "gen_ai.response.finish_reasons": '["stop"]',
        },
        {
            "provider_name": "openai",
            "usage": TokenUsage(input_tokens=10, output_tokens=20, cache_write_input_tokens=0),
            "finish_reasons": ("stop",),
            "source": "otlp:genai",
        },
    ),
    "genai through openrouter": (
        "chat openai/gpt-4.1-mini",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "openai/gpt-4.1-mini",
            "gen_ai.response.id": "gen-1763769600-Ab3",
            "server.address": "openrouter.ai",
            "gen_ai.usage.cost.amount": 0.0021344,
            "gen_ai.usage.cost.currency": "USD",
            "gen_ai.usage.cost.source": "provider",
        },
        {
            "provider_name": "openrouter",
            "reported_cost": Decimal("0.0021344"),
            "listed_cost": None,
            "cost_basis": CostBasis.REPORTED,
        },
    ),
    "pydantic ai": (
        "chat gpt-4o",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.details.cache_read_tokens": 40,
            "gen_ai.usage.details.input_tokens": 60,
            "operation.cost": 0.00045,
        },
        {
            "usage": TokenUsage(input_tokens=100, output_tokens=20, cache_read_input_tokens=40),
            "reported_cost": None,
            "listed_cost": Decimal("0.00045"),
            "cost_basis": CostBasis.LISTED,
        },
    ),
    "openinference": (
        "ChatCompletion",
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "anthropic",
            "llm.model_name": "claude-sonnet-4-5",
            "llm.token_count.prompt": 300,
            "llm.token_count.completion": 20,
            "llm.token_count.total": 1020,
            "llm.token_count.prompt_details.cache_read": 700,
            "llm.input_messages.0.message.content": "secret",
            "input.value": "secret",
            "session.id": "s-1",
            "user.id": "u-1",
        },
        {
            "provider_name": "anthropic",
            "request_model": "claude-sonnet-4-5",
            "usage": TokenUsage(
                input_tokens=1000, output_tokens=20, total_tokens=1020, cache_read_input_tokens=700
            ),
            "tags": Tags(project="shop", session="s-1", user="u-1"),
            "source": "otlp:openinference",
            "attributes": {"usage_semantics": "additive: total"},
        },
    ),
    "openinference embedding": (
        "CreateEmbeddings",
        {
            "openinference.span.kind": "EMBEDDING",
            "llm.system": "openai",
            "embedding.model_name": "text-embedding-3-small",
            "llm.token_count.prompt": 8,
        },
        {
            "operation_name": "embeddings",
            "request_model": "text-embedding-3-small",
            "usage": TokenUsage(input_tokens=8),
        },
    ),
    "traceloop": (
        "openai.chat",
        {
            "llm.request.type": "chat",
            "gen_ai.system": "OpenAI",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.usage.prompt_tokens": "10",
            "gen_ai.usage.completion_tokens": "20",
            "llm.usage.total_tokens": 30,
            "gen_ai.usage.cache_read_input_tokens": 4,
            "gen_ai.prompt.0.content": "secret",
            "traceloop.association.properties.session_id": "s-1",
            "traceloop.workflow.name": "triage",
        },
        {
            "provider_name": "openai",
            "response_id": "chatcmpl-1",
            "usage": TokenUsage(input_tokens=10, output_tokens=20, total_tokens=30, cache_read_input_tokens=4),
            "tags": Tags(project="shop", session="s-1"),
            "source": "otlp:traceloop",
        },
    ),
    "vercel": (
        "ai.streamText.doStream",
        {
            "operation.name": "ai.streamText.doStream support-bot",
            "ai.operationId": "ai.streamText.doStream",
            "ai.model.id": "gpt-4o",
            "ai.model.provider": "openai.chat",
            "ai.response.id": "chatcmpl-2",
            "ai.response.model": "gpt-4o-2024-08-06",
            "ai.response.msToFirstChunk": 120.5,
            "ai.response.finishReason": "stop",
            "ai.usage.inputTokens": 100,
            "ai.usage.cachedInputTokens": 80,
            "ai.usage.outputTokens": 20,
            "ai.telemetry.functionId": "support-bot",
            "ai.prompt.messages": "secret",
            "ai.response.text": "secret",
        },
        {
            "provider_name": "openai",
            "request_model": "gpt-4o",
            "response_model": "gpt-4o-2024-08-06",
            "response_id": "chatcmpl-2",
            "time_to_first_chunk_us": 120_500,
            "finish_reasons": ("stop",),
            "streamed": True,
            "usage": TokenUsage(input_tokens=100, output_tokens=20, cache_read_input_tokens=80),
            "tags": Tags(project="shop", agent="support-bot"),
            "source": "otlp:vercel",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoding", READERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_call_of_another_instrumentation_is_read_by_its_dialect(dialect: str, encoding: str) -> None:
    name, attributes, expected = DIALECTS[dialect]
    found = foreign(attributes, name=name, encoding=encoding)
    assert {fact: getattr(found, fact) for fact in expected} == expected
    assert found.source.startswith("otlp:")
    assert "secret" not in repr(found)


BROADCAST = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "openai/gpt-4.1-mini",
    "gen_ai.response.id": "gen-1763769600-Ab3",
    "gen_ai.response.model": "openai/gpt-4.1-mini",
    "gen_ai.usage.input_tokens": 10240,
    "gen_ai.usage.input_tokens.cached": 8192,
    "gen_ai.usage.output_tokens": 310,
    "gen_ai.usage.total_tokens": 10550,
    "gen_ai.usage.total_cost": 0,
    "gen_ai.response.finish_reasons": '["stop"]',
    "trace.metadata.openrouter.provider_name": "Azure",
    "trace.metadata.openrouter.first_token_ms": 250,
    "trace.metadata.openrouter_generation.is_byok": True,
    "trace.metadata.openrouter_generation.byok_usage_inference": 0.0021,
    "trace.metadata.openrouter_generation.streamed": "true",
    "span.type": "generation",
    "gen_ai.prompt": "secret",
}


@pytest.mark.parametrize("encoding", READERS)
def test_openrouters_own_account_of_a_call_counts_once_and_its_zero_is_a_zero(encoding: str) -> None:
    resource = {"service.name": "openrouter", "openrouter.trace.id": "gen-1763769600-Ab3"}
    how: dict[str, Any] = {"scope": "openrouter", "resource": resource, "encoding": encoding}
    found = foreign(BROADCAST, name="LLM Generation", **how)
    assert found.source == "broadcast"
    assert (found.provider_name, found.serving_provider, found.service_name) == ("openrouter", "Azure", None)
    assert (found.reported_cost, found.upstream_cost, found.is_byok) == (Decimal(0), Decimal("0.0021"), True)
    assert found.usage == TokenUsage(
        input_tokens=10240, output_tokens=310, total_tokens=10550, cache_read_input_tokens=8192
    )
    assert (found.time_to_first_chunk_us, found.streamed, found.finish_reasons) == (250_000, True, ("stop",))
    for name, suffix in (("provider attempt 1: Azure", ":attempt-0"), ("generation", ":generation")):
        attributes = {**BROADCAST, "gen_ai.response.id": f"gen-1763769600-Ab3{suffix}"}
        assert read_span(otlp.span(name, attributes=attributes, at=NOW), **how) is None
    assert read_span(otlp.span("openrouter-connection-test", attributes={}, at=NOW), **how) is None


NOT_A_CALL: dict[str, tuple[str, dict[str, object]]] = {
    "an HTTP span": ("POST", {"http.request.method": "POST", "server.address": "api.openai.com"}),
    "an agent": ("invoke_agent crawler", {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 5}),
    "a tool": ("execute_tool search", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}),
    "a workflow": ("invoke_workflow", {"gen_ai.operation.name": "invoke_workflow", "gen_ai.usage.input_tokens": 5}),
    "a stored reply read again": ("fetch", {"gen_ai.operation.name": "fetch_response", "gen_ai.system": "openai"}),
    "an OpenInference agent": ("run", {"openinference.span.kind": "AGENT", "llm.token_count.prompt": 5}),
    "an OpenInference chain": ("run", {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 5}),
    "a Traceloop workflow": ("run", {"traceloop.span.kind": "workflow", "gen_ai.system": "openai"}),
    "a Vercel root": ("ai.generateText", {"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 5}),
    "a Vercel tool": ("ai.toolCall", {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "search"}),
    "a Langfuse agent": (
        "run", {"langfuse.observation.type": "agent", "langfuse.observation.usage_details": '{"input": 5}'},
    ),
    "a Langfuse span": ("run", {"langfuse.observation.type": "span", "langfuse.observation.model.name": "m"}),
    "what Logfire knows of a span that has begun": (
        "chat m", {"gen_ai.operation.name": "chat", "gen_ai.system": "openai", "logfire.span_type": "pending_span"},
    ),
    "a Vercel step": ("step 1", {"gen_ai.operation.name": "agent_step"}),
    "a bare system": ("run", {"gen_ai.system": "openai", "gen_ai.usage.input_tokens": 5}),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_A_CALL)
def test_a_span_that_is_not_a_call_to_a_model_is_none_of_our_business(kind: str) -> None:
    name, attributes = NOT_A_CALL[kind]
    assert read_span(otlp.span(name, attributes=attributes, at=NOW)) is None


MODEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 5,
}


@pytest.mark.parametrize(
    ("cost", "reported", "listed", "kept"),
    [
        ({"gen_ai.usage.cost": 0.25}, None, Decimal("0.25"), None),
        ({"gen_ai.usage.cost.amount": 0.25, "gen_ai.usage.cost.source": "provider"}, Decimal("0.25"), None, None),
        ({"gen_ai.usage.cost.amount": 0.25, "gen_ai.usage.cost.source": "local"}, None, Decimal("0.25"), None),
        ({"gen_ai.usage.cost.amount": 0.0, "gen_ai.usage.cost.source": "provider"}, None, None, None),
        ({"gen_ai.usage.cost": -1.0}, None, None, "-1.0 USD"),
        ({"gen_ai.usage.cost": 1000.5}, None, None, "1000.5 USD"),
        ({"gen_ai.usage.cost": "free"}, None, None, "free USD"),
        ({"gen_ai.usage.cost.amount": 3.0, "gen_ai.usage.cost.currency": "EUR"}, None, None, "3.0 EUR"),
    ],
)
def test_a_cost_of_somebody_else_is_taken_only_when_it_can_be_one(
    cost: dict[str, object], reported: Decimal | None, listed: Decimal | None, kept: str | None
) -> None:
    found = foreign({**MODEL, **cost})
    assert (found.reported_cost, found.listed_cost) == (reported, listed)
    assert found.attributes.get("cost_rejected") == kept


def test_a_failed_call_is_an_error() -> None:
    span = otlp.span(attributes={**MODEL, "error.type": "429", "http.response.status_code": 429}, at=NOW, error=True)
    found = read_span(span)
    assert isinstance(found, LLMCall)
    assert (found.status, found.error_type, found.http_status) == (CallStatus.ERROR, "429", 429)


@pytest.mark.parametrize(
    ("named", "host", "response_id", "expected"),
    [
        ("OpenAI", None, None, "openai"),
        ("openai", "openrouter.ai", None, "openrouter"),
        ("openai", "https://openrouter.ai/api/v1", None, "openrouter"),
        ("openai", None, "gen-1763769600-Ab3", "openrouter"),
        ("openai", "myopenrouter.ai.evil.example", None, "openai"),
        (None, "contoso.openai.azure.com", None, "azure.ai.openai"),
        ("google", "us-central1-aiplatform.googleapis.com", None, "gcp.vertex_ai"),
        (None, "bedrock-runtime.eu-west-1.amazonaws.com", None, "aws.bedrock"),
        ("MistralAI", None, None, "mistral_ai"),
        ("xai", None, None, "x_ai"),
        ("AWS", None, None, "aws.bedrock"),
        ("az.ai.openai", None, None, "azure.ai.openai"),
        ("anthropic.messages", None, None, "anthropic"),
        ("google.generative-ai", None, None, "gcp.gemini"),
        ("gcp.vertex_ai", None, None, "gcp.vertex_ai"),
        ("our-own-gateway", None, None, "our-own-gateway"),
    ],
)
def test_a_provider_has_one_name(named: str | None, host: str | None, response_id: str | None, expected: str) -> None:
    facts = {"gen_ai.provider.name": named, "server.address": host, "gen_ai.response.id": response_id}
    found = foreign({**MODEL, "gen_ai.provider.name": "", **{name: fact for name, fact in facts.items() if fact}})
    assert found.provider_name == expected


def _span_with(**changes: Any) -> trace_pb2.Span:
    span = otlp.own_span(WHOLE)
    for name, value in changes.items():
        setattr(span, name, value)
    return span


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trace_id": b""}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"trace_id": b"short"}, "trace id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"start_time_unix_nano": 0}, "starts 0 ns"),
        ({"start_time_unix_nano": 1}, "starts 1 ns"),
        ({"start_time_unix_nano": 2**64 - 1}, "starts 18446744073709551615 ns"),
        ({"start_time_unix_nano": int((NOW + timedelta(days=2)).timestamp()) * 10**9}, "from 2020 to tomorrow"),
    ],
)
@pytest.mark.parametrize("encoding", READERS)
def test_a_call_that_cannot_be_right_is_rejected_with_the_reason(
    changes: dict[str, Any], reason: str, encoding: str
) -> None:
    found = read_span(_span_with(**changes), scope="spendwatch", encoding=encoding)
    assert isinstance(found, Rejected)
    assert reason in found.reason


def test_a_clock_that_went_back_during_the_call_does_not_lose_it() -> None:
    span = _span_with(end_time_unix_nano=otlp.own_span(WHOLE).start_time_unix_nano - 5_000_000)
    assert read_span(span, scope="spendwatch") == replace(WHOLE, duration_us=0)


def test_one_sender_cannot_pass_for_our_sdk_without_its_marks() -> None:
    assert read_span(otlp.span(attributes={"gen_ai.request.model": "m"}, at=NOW), scope="spendwatch") is None


ONE_REPLY = {
    "gen_ai.operation.name": "acompletion",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 50,
}


@pytest.mark.parametrize(
    ("said", "replayed"),
    [
        ({"hidden_params": '{"cache_hit": true}', "gen_ai.cost.total_cost": 0.000135}, True),
        ({"metadata.cache_hit": "True", "gen_ai.cost.total_cost": 0.000135}, True),
        ({"litellm.cache_hit": True, "litellm.cost.total": 0.000135}, True),
        ({"hidden_params": '{"cache_key": "48bf", "response_cost": 0.0}'}, True),
        ({"hidden_params": '{"cache_key": "48bf", "response_cost": 0.000135}'}, False),
        ({"hidden_params": '{"cache_key": null, "response_cost": 0.0}'}, False),
        ({"hidden_params": '{"cache_hit": false}', "gen_ai.cost.total_cost": 0.000135}, False),
        ({"metadata.cache_hit": "False"}, False),
    ],
)
def test_a_reply_out_of_litellms_cache_costs_nothing_and_is_not_the_call_that_filled_it(
    said: dict[str, object], replayed: bool
) -> None:
    found = foreign({**ONE_REPLY, **said}, scope="litellm")
    if replayed:
        assert (found.reported_cost, found.listed_cost, found.cost_basis) == (Decimal(0), None, CostBasis.REPORTED)
        assert (found.response_id, found.usage) == (None, TokenUsage(input_tokens=0, output_tokens=0))
        assert found.attributes["replayed_response_id"] == "chatcmpl-1"
    else:
        assert (found.response_id, found.usage.input_tokens, found.reported_cost) == ("chatcmpl-1", 1200, None)


LANGFUSE: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "an OpenAI usage": (
        '{"prompt_tokens": 1200, "completion_tokens": 50, "total_tokens": 1250, '
        '"prompt_tokens_details": {"cached_tokens": 1000}, "completion_tokens_details": {"reasoning_tokens": 20}}',
        (1200, 50, 1000, None, 20),
    ),
    "an Anthropic usage": (
        '{"input_tokens": 100, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300, '
        '"output_tokens": 50}',
        (1400, 50, 1000, 300, None),
    ),
    "buckets": ('{"input": 200, "input_cached_tokens": 1000, "output": 50}', (1200, 50, 1000, None, None)),
    "buckets smaller than the input": (
        '{"input": 200, "input_cache_read": 100, "output": 5}', (300, 5, 100, None, None),
    ),
    "buckets with reasoning": (
        '{"input": 200, "input_cached_tokens": 1000, "output": 30, "output_reasoning_tokens": 20, "total": 1250}',
        (1200, 50, 1000, None, 20),
    ),
    "buckets with reasoning, without a total": (
        '{"input": 200, "output": 30, "output_reasoning": 20}', (200, 50, None, None, 20),
    ),
    "whole figures with a total": (
        '{"input": 1200, "input_cached_tokens": 1000, "output": 50, "output_reasoning_tokens": 20, "total": 1250}',
        (1200, 50, 1000, None, 20),
    ),
    "nothing": ("{}", (None, None, None, None, None)),
}  # fmt: skip


@pytest.mark.parametrize("case", LANGFUSE)
def test_langfuses_usage_is_counted_whole_however_it_is_split(case: str) -> None:
    packed, expected = LANGFUSE[case]
    attributes = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "claude-sonnet-4-5",
        "langfuse.observation.usage_details": packed,
    }
    use = foreign(attributes).usage
    assert (
        use.input_tokens,
        use.output_tokens,
        use.cache_read_input_tokens,
        use.cache_write_input_tokens,
        use.reasoning_output_tokens,
    ) == expected


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-mini", "openai"),
        ("o4-mini", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-3-pro", "gcp.gemini"),
        ("our-own-model", "unknown"),
        ("openai/gpt-4o", "unknown"),
    ],
)
def test_where_nobody_is_named_the_model_may_tell_who_was_called(model: str, provider: str) -> None:
    attributes = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": model}
    assert foreign(attributes).provider_name == provider
    deployment = {"gen_ai.operation.name": "chat", "litellm.call_type": "acompletion", "gen_ai.request.model": "m"}
    assert foreign({**deployment, "litellm.provider.model": "azure/gpt-4o"}).provider_name == "azure.ai.openai"


def test_a_span_that_names_nobody_and_no_model_is_rejected() -> None:
    found = read_span(otlp.span(attributes={"gen_ai.operation.name": "chat"}, at=NOW))
    assert isinstance(found, Rejected)
    assert "names no provider, no known host and no model" in found.reason


@pytest.mark.parametrize(
    ("scope", "provider", "expected"),
    [
        ("openinference.instrumentation.langchain", "anthropic", 1000),
        ("openinference.instrumentation.litellm", "aws.bedrock", 1000),
        ("openinference.instrumentation.anthropic", "anthropic", 1600),
        ("openinference.instrumentation.bedrock", "aws.bedrock", 1600),
        ("openinference.instrumentation.openai", "openai", 1000),
        ("", "anthropic", 1600),
    ],
)
def test_openinferences_input_holds_the_cache_unless_a_providers_own_count_was_passed_on(
    scope: str, provider: str, expected: int
) -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.provider": provider,
        "llm.model_name": "claude-sonnet-4-5",
        "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 20,
        "llm.token_count.prompt_details.cache_read": 600,
    }
    assert foreign(attributes, scope=scope).usage.input_tokens == expected


@pytest.mark.parametrize(("provider", "expected"), [("anthropic", 1600), ("openai", 1000)])
def test_openlit_counts_as_the_provider_does(provider: str, expected: int) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.cost": 0,
    }
    found = foreign(attributes, scope=f"openlit.instrumentation.{provider}")
    assert (found.usage.input_tokens, found.listed_cost) == (expected, None)


@pytest.mark.parametrize(
    ("framework", "model", "expected"),
    [
        ("strands-agents", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"),
        ("strands-agents", "gpt-4o-mini", "openai"),
        ("langchain", "claude-sonnet-4-5", "anthropic"),
        ("crewai", "a-model", "unknown"),
    ],
)
def test_a_frameworks_name_is_not_a_providers(framework: str, model: str, expected: str) -> None:
    found = foreign({"gen_ai.operation.name": "chat", "gen_ai.system": framework, "gen_ai.request.model": model})
    assert found.provider_name == expected
