"""Spans that the real packages sent (data/, made by tests.collectors.otlp.record): which are calls, and what they say.

One row per call, whoever wraps it; tokens with the cache in them; nothing of what was said gets in.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.otlp import call as call_module
from collectors.otlp import dialects, otlp_json
from collectors.otlp.limits import Limits
from collectors.otlp.spans import Rejected
from spendwatch.calls import LLMCall
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.rollup import roll
from tests.collectors.otlp import otlp
from tests.collectors.otlp.conftest import Collector, partial_success
from tests.collectors.otlp.record.__main__ import RECORDINGS
from tests.collectors.otlp.record.provider import CANARY

DATA = Path(__file__).parent / "data"

# What the scripted provider replied with (record/provider.py), as semconv counts it: the cache inside the input.
GPT = ("openai", "gpt-4o-mini", 1200, 1000, None, 50, 20, Decimal("0.000135"))
GPT_DATED = (GPT[0], "gpt-4o-mini-2024-07-18", *GPT[2:])
CLAUDE = ("anthropic", "claude-sonnet-4-5", 1400, 1000, 300, 50, None, Decimal("0.002475"))
CLAUDE_5 = ("anthropic", "claude-sonnet-5", 1400, 1000, 300, 50, None, Decimal("0.00165"))
EMBEDDING = ("openai", "text-embedding-3-small", 8, None, None, None, None, Decimal("0.00000016"))


def without_reasoning(call: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*call[:6], None, *call[7:])


def openlit(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """It says 0 where nothing was written into the cache, and nothing of reasoning."""
    return (*call[:4], 0, call[5], None, call[7])


UNCACHED = (*GPT[:3], None, None, 50, None, Decimal("0.00021"))
"""OpenTelemetry's own package of this version says nothing of the cache."""

# recording -> (id of the reply, provider, model, input, cache read, cache write, output, reasoning, cost) of its calls
# that succeeded, in the order of their start
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "otel_genai": [("chatcmpl-0001", *UNCACHED), ("chatcmpl-0002", *UNCACHED), (None, *EMBEDDING)],
    "otel_genai_old": [("chatcmpl-0001", *UNCACHED), ("chatcmpl-0002", *UNCACHED), (None, *EMBEDDING)],
    "openinference": [
        (None, *GPT_DATED), (None, *GPT_DATED), (None, *GPT_DATED), (None, *EMBEDDING), (None, *CLAUDE_5),
        (None, *CLAUDE_5),
    ],
    "openinference_langchain": [(None, *GPT_DATED), (None, *GPT), (None, *CLAUDE)],
    "openlit": [
        ("chatcmpl-0001", *openlit(GPT)), ("chatcmpl-0002", *openlit(GPT)), (None, *EMBEDDING), ("msg_0004", *CLAUDE),
    ],
    "strands": [(None, *without_reasoning(GPT)), (None, *without_reasoning(GPT))],
    "openllmetry": [
        ("chatcmpl-0001", *GPT), ("chatcmpl-0002", *without_reasoning(GPT)), ("resp_0003", *GPT),
        (None, *EMBEDDING[:3], 0, *EMBEDDING[4:]), ("msg_0005", *CLAUDE_5), ("msg_0006", *CLAUDE_5),
    ],
    "pydantic_ai": [
        ("chatcmpl-0001", *GPT), ("chatcmpl-0002", *GPT), ("chatcmpl-0003", *GPT), ("resp_0004", *GPT),
        ("msg_0005", *CLAUDE),
    ],
    "logfire": [
        ("chatcmpl-0001", *GPT), ("chatcmpl-0002", *GPT), ("resp_0003", *GPT), (None, *EMBEDDING),
        ("msg_0005", *CLAUDE), ("msg_0006", *CLAUDE),
    ],
    "langfuse": [
        (None, *GPT_DATED), (None, *GPT_DATED), (None, *GPT_DATED), (None, *EMBEDDING), (None, *CLAUDE),
    ],
    "litellm": [
        ("chatcmpl-0001", *GPT), (None, "openai", "gpt-4o-mini", 0, None, None, 0, None, Decimal(0)),
        ("chatcmpl-0002", *GPT), ("LiteLLM's own", *CLAUDE[:6], 0, CLAUDE[7]),
        ("LiteLLM's own", *EMBEDDING[:5], 0, *EMBEDDING[6:]),
    ],
    "litellm_v2": [
        ("chatcmpl-0001", *without_reasoning(GPT)), ("chatcmpl-0002", *without_reasoning(GPT)),
        ("LiteLLM's own", *CLAUDE), (None, *EMBEDDING[:5], 0, *EMBEDDING[6:]),
    ],
    "vercel_6": [
        ("chatcmpl-0001", *GPT), ("chatcmpl-0002", *GPT), ("resp_0003", *GPT), ("msg_0004", *CLAUDE),
        ("gen-1795521600-0005", "openrouter", "openai/gpt-4o-mini", *GPT[2:7], Decimal("0.00123")),
        (None, *EMBEDDING),
    ],
    "vercel_7": [
        ("chatcmpl-0001", *without_reasoning(GPT)), ("chatcmpl-0002", *without_reasoning(GPT)),
        ("resp_0003", *without_reasoning(GPT)), ("msg_0004", *CLAUDE), (None, *EMBEDDING),
    ],
}  # fmt: skip
CALLS["vercel_6_json"] = CALLS["vercel_6"]
FAILED = dict.fromkeys(CALLS, 1)
"""Each recording has one call that the provider refused."""

SOURCES = {
    "otel_genai": {"otlp:genai"}, "otel_genai_old": {"otlp:genai"}, "openinference": {"otlp:openinference"},
    "openinference_langchain": {"otlp:openinference"}, "openlit": {"otlp:openlit"}, "strands": {"otlp:genai"},
    "openllmetry": {"otlp:traceloop", "otlp:genai"}, "pydantic_ai": {"otlp:logfire", "otlp:genai"},
    "logfire": {"otlp:logfire"}, "langfuse": {"otlp:langfuse"}, "litellm": {"otlp:litellm"},
    "litellm_v2": {"otlp:litellm"}, "vercel_6": {"otlp:vercel"}, "vercel_6_json": {"otlp:vercel"},
    "vercel_7": {"otlp:genai"},
}  # fmt: skip


def body(name: str) -> tuple[str, bytes]:
    """(content type, the recorded request)."""
    path = DATA / f"{name}.json"
    if path.exists():
        return "application/json", path.read_bytes()
    return "application/x-protobuf", (DATA / f"{name}.binpb").read_bytes()


def in_json(name: str) -> bytes:
    kind, found = body(name)
    return found if kind == "application/json" else otlp.json_body(ExportTraceServiceRequest.FromString(found))


def read(name: str) -> list[LLMCall]:
    reader = call_module.Reader(project="shop", now=datetime.now(UTC))
    spans = otlp_json.read(
        in_json(name), limits=Limits(), wanted=dialects.wanted, resource_wanted=dialects.resource_wanted
    )
    found = [span if isinstance(span, Rejected) else reader.read(span) for span in spans]
    assert not [item for item in found if isinstance(item, Rejected)]
    return [item for item in found if isinstance(item, LLMCall)]


def stored(clickhouse: Connection) -> list[tuple[Any, ...]]:
    return clickhouse.query(
        "golden",
        "SELECT if(position(response_id, '-') = 9 AND length(response_id) > 20 OR length(response_id) = 36, "
        "'LiteLLM''s own', nullIf(response_id, '')), provider_name, request_model, input_tokens, "
        "cache_read_input_tokens, cache_write_input_tokens, output_tokens, reasoning_output_tokens, effective_cost "
        "FROM llm_calls FINAL WHERE status = 'ok' ORDER BY started_at",
    )


def test_every_recording_is_tested_and_says_where_it_is_from() -> None:
    assert set(CALLS) == set(RECORDINGS) == set(SOURCES)
    provenance = json.loads((DATA / "provenance.json").read_text())
    assert provenance == {
        name: {"script": made.script, "packages": sorted(made.packages), "environment": made.environment}
        for name, made in RECORDINGS.items()
    }


@pytest.mark.parametrize("name", CALLS)
def test_each_call_of_a_real_package_is_one_row(name: str, collector: Collector, clickhouse: Connection) -> None:
    kind, found = body(name)
    for _ in range(2):  # an exporter may send it again
        assert partial_success(collector.post(found, content_type=kind)) == (0, "")
    assert stored(clickhouse) == CALLS[name]
    rows = clickhouse.query(
        "sources", "SELECT status, count(), groupUniqArray(source) FROM llm_calls FINAL GROUP BY status ORDER BY status"
    )
    assert [(status, count) for status, count, _ in rows] == [("error", FAILED[name]), ("ok", len(CALLS[name]))]
    assert {source for *_, sources in rows for source in sources} <= SOURCES[name]
    # The hourly sums hold each once as well, also when they were rebuilt meanwhile.
    roll(clickhouse)
    assert stored(clickhouse) == CALLS[name]


@pytest.mark.parametrize("name", CALLS)
def test_json_says_the_same_as_protobuf(name: str, collector: Collector, clickhouse: Connection) -> None:
    assert partial_success(collector.post(in_json(name), content_type="application/json")) == (0, "")
    assert stored(clickhouse) == CALLS[name]


@pytest.mark.parametrize("name", CALLS)
def test_nothing_of_what_was_said_gets_in(name: str, collector: Collector, clickhouse: Connection) -> None:
    kind, found = body(name)
    assert CANARY.encode() in found  # it was sent
    assert CANARY not in repr(read(name))
    assert partial_success(collector.post(found, content_type=kind)) == (0, "")
    for row in clickhouse.query("everything", "SELECT toString(tuple(*)) FROM llm_calls"):
        assert CANARY not in row[0]
        assert "sunny" not in row[0]


FACTS: dict[str, Callable[[list[LLMCall]], object]] = {
    "openinference": lambda calls: {(c.tags.session, c.tags.user) for c in calls if c.usage.input_tokens},
    "pydantic_ai": lambda calls: {c.tags.agent for c in calls},
    "logfire": lambda calls: {c.response_id: c.duration_us > 0 and c.streamed for c in calls if c.response_id},
    "langfuse": lambda calls: [c.time_to_first_chunk_us is not None for c in sorted(calls, key=lambda c: c.started_at)],
    "litellm": lambda calls: [dict(c.attributes) for c in calls if c.reported_cost is not None],
    "vercel_6": lambda calls: {
        (c.tags.session, c.tags.user, c.tags.agent, c.serving_provider) for c in calls if c.provider_name != "openai"
    },
}
EXPECTED: dict[str, object] = {
    "openinference": {("session-1", "user-1")},
    "pydantic_ai": {"forecaster", "streamer", "responder", "claude", "unlucky"},
    "logfire": {
        "chatcmpl-0001": False, "chatcmpl-0002": True, "resp_0003": False, "msg_0005": False, "msg_0006": True,
    },
    "langfuse": [False, True, False, False, False, False],
    "litellm": [{"replayed_response_id": "chatcmpl-0001"}],
    "vercel_6": {
        ("session-1", "user-1", "forecaster", None), ("session-1", "user-1", "forecaster", "Azure"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_what_else_a_package_tells_is_read(name: str) -> None:
    assert FACTS[name](read(name)) == EXPECTED[name]
