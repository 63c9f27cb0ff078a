"""Single cells of the wide table (SDK x provider x way to call) that other tests leave open, with the real SDKs."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import types
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback
from tests.hooks.replies import ASK, MESSAGE, SSE, message_events
from tests.hooks.test_bedrock import EVENT_STREAM, invoked
from tests.hooks.test_clients import attributes, has, only

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MESSAGES: Any = ASK["messages"]
SONNET: Any = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": MESSAGES}
HOUR = {
    "input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 3000, "output_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
}  # fmt: skip


def test_a_cache_written_for_an_hour_costs_what_an_hour_costs(provider: Loopback) -> None:
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter, hosts={f"127.0.0.1:{provider.port}": "anthropic"})
    provider.always(json.dumps({**MESSAGE, "model": "claude-sonnet-5", "usage": HOUR}).encode())
    with anthropic.Anthropic(api_key="sk-ant", base_url=provider.url, max_retries=0) as client:
        client.messages.create(**SONNET)
    assert spendwatch.flush()
    # USD per million: 2 fresh, 0.20 read, 2.50 and 4 written for five minutes and an hour, 10 output.
    has(
        only(list(exporter.get_finished_spans())),
        **{"spendwatch.cost.listed": "0.01172", "gen_ai.usage.input_tokens": 4010, "gen_ai.usage.output_tokens": 100},
    )


def test_the_anthropic_sdks_own_span_is_the_parent_and_never_a_second_call(provider: Loopback, spans: Spans) -> None:
    theirs = InMemorySpanExporter()
    app = TracerProvider()
    app.add_span_processor(SimpleSpanProcessor(theirs))
    for streamed, chunks in ((False, [json.dumps(MESSAGE).encode()]), (True, message_events())):
        provider.always(*chunks, **({"headers": SSE} if streamed else {}))
        with anthropic.Anthropic(
            api_key="sk-ant", base_url=provider.url, max_retries=0, open_telemetry={"tracer_provider": app}
        ) as client:
            made = client.messages.create(**SONNET, stream=streamed)
            if streamed:
                list(made)
    ours, own = spans(), theirs.get_finished_spans()
    assert (len(ours), len(own)) == (2, 2)
    for mine, its in zip(ours, own, strict=True):
        assert mine.context is not None
        assert its.context is not None
        assert mine.parent is not None
        assert mine.parent.span_id == its.context.span_id
        # By the reply's id both are one call, whoever tells of it.
        assert attributes(mine)["gen_ai.response.id"] == attributes(its)["gen_ai.response.id"] == MESSAGE["id"]
        assert mine.instrumentation_scope is not None
        assert mine.instrumentation_scope.name == "spendwatch"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_anthropics_client_for_vertex_is_watched(streamed: bool, provider: Loopback, spans: Spans) -> None:
    provider.always(*(message_events() if streamed else [json.dumps(MESSAGE).encode()]),
                    **({"headers": SSE} if streamed else {}))  # fmt: skip
    with anthropic.AnthropicVertex(
        region="us-east5", project_id="p", access_token="ya29.x", base_url=provider.url + "/v1", max_retries=0
    ) as client:
        made = client.messages.create(**{**SONNET, "model": "claude-sonnet-5@20260101"}, stream=streamed)
        if streamed:
            list(made)
    verb = "streamRawPredict" if streamed else "rawPredict"
    assert provider.seen[0].target.endswith(f"/publishers/anthropic/models/claude-sonnet-5@20260101:{verb}")
    has(only(spans()), **{"gen_ai.request.model": "claude-sonnet-5@20260101", "gen_ai.usage.input_tokens": 2871,
                          "gen_ai.usage.output_tokens": 83, "spendwatch.status": "ok"})  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_anthropics_client_for_bedrock_is_watched(streamed: bool, provider: Loopback, spans: Spans) -> None:
    provider.always(*(invoked() if streamed else [json.dumps(MESSAGE).encode()]),
                    **({"headers": EVENT_STREAM} if streamed else {}))  # fmt: skip
    with anthropic.AnthropicBedrock(
        aws_region="us-east-1", aws_access_key="AKIAEXAMPLE", aws_secret_key="x", base_url=provider.url, max_retries=0
    ) as client:
        made = client.messages.create(**{**SONNET, "model": "us.anthropic.claude-sonnet-5"}, stream=streamed)
        if streamed:
            list(made)
    found = only(spans())
    has(found, **{"gen_ai.request.model": "us.anthropic.claude-sonnet-5", "gen_ai.usage.input_tokens": 2871,
                  "gen_ai.usage.output_tokens": 83, "spendwatch.status": "ok"})  # fmt: skip
    assert ("gen_ai.request.stream" in found) is streamed


def gemini(client: genai.Client) -> None:
    chunks = client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
    assert next(iter(chunks)).text == "w0 "
    chunks.close()
    client.close()


def agemini(client: genai.Client) -> None:
    async def main() -> None:
        chunks = await client.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
        async for chunk in chunks:
            assert chunk.text == "w0 "
            break
        await chunks.aclose()
        await client.aio.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("way", [gemini, agemini], ids=["sync", "async"])
def test_a_gemini_stream_left_half_way_keeps_its_known_input(
    way: Callable[[genai.Client], None], provider: Loopback, spans: Spans
) -> None:
    events = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": f"w{n} "}]}, "index": 0}],
         "usageMetadata": {"promptTokenCount": 412, "totalTokenCount": 412}, "modelVersion": "gemini-2.5-flash",
         "responseId": "resp-9"}
        for n in range(200)
    ]  # fmt: skip
    provider.answers = lambda seen: Answer(
        chunks=[b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events], headers=SSE
    )
    way(genai.Client(api_key="AIza-x", http_options=types.HttpOptions(base_url=provider.url)))
    found = only(spans())
    has(found, **{"spendwatch.status": "aborted", "gen_ai.usage.input_tokens": 412, "gen_ai.response.id": "resp-9"})
    assert "gen_ai.usage.output_tokens" not in found
