"""The calls that are hardest to price, made by the real openai SDK over a socket: one span each, with true figures."""

import asyncio
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import ASK, CHAT, CHAT_BODY, PATH, SSE, chat_events
from tests.hooks.test_clients import TOKENS, attributes, has, only

MESSAGES: Any = ASK["messages"]
USAGE: Any = CHAT["usage"]
Named = Callable[[str], Spans]


@pytest.fixture
def named(provider: Loopback) -> Named:
    """Record with the loopback known as a provider."""

    def as_provider(name: str) -> Spans:
        exporter = InMemorySpanExporter()
        spendwatch.instrument(span_exporter=exporter, hosts={f"127.0.0.1:{provider.port}": name})

        def recorded() -> list[ReadableSpan]:
            assert spendwatch.flush()
            return list(exporter.get_finished_spans())

        return recorded

    return as_provider


@pytest.fixture
def client(provider: Loopback) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-x", base_url=provider.url + "/v1", max_retries=0) as client:
        yield client


def reply(model: str, usage: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({**CHAT, "model": model, "usage": usage, **members}).encode()


def test_a_stream_left_half_way_keeps_what_is_known(provider: Loopback, named: Named, client: openai.OpenAI) -> None:
    spans = named("openai")
    provider.always(*chat_events(), headers=SSE)
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()
    found = only(spans())
    has(found, **{"spendwatch.status": "aborted", "gen_ai.response.id": "chatcmpl-stream1",
                  "gen_ai.response.model": "gpt-4o-mini-2024-07-18", "spendwatch.cost.basis": "unpriced"})  # fmt: skip
    assert not [name for name in found if name.startswith("gen_ai.usage")]


def test_a_stream_whose_usage_nobody_asked_for_has_no_tokens_rather_than_none_at_all(
    provider: Loopback, named: Named, client: openai.OpenAI
) -> None:
    spans = named("openai")
    provider.always(*chat_events(usage=False), headers=SSE)
    assert len(list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))) == 6
    found = only(spans())
    has(found, **{"spendwatch.status": "ok", "spendwatch.cost.basis": "unpriced"})
    assert not [name for name in found if name.startswith("gen_ai.usage")]


@pytest.mark.parametrize("streamed", [False, True])
def test_openrouters_cost_goes_over_any_list_price(
    provider: Loopback, named: Named, client: openai.OpenAI, streamed: bool
) -> None:
    spans = named("openrouter")
    usage = {**USAGE, "cost": 7.02e-05, "is_byok": True,
             "cost_details": {"upstream_inference_cost": 0.01875}}  # fmt: skip
    if streamed:
        begun, *_, last, done = chat_events()
        final = {**json.loads(last[6:]), "usage": usage, "provider": "OpenAI"}
        provider.always(b": OPENROUTER PROCESSING\n\n", begun, b"data: " + json.dumps(final).encode() + b"\n\n", done,
                        headers=SSE)  # fmt: skip
        list(client.chat.completions.create(model="openai/gpt-4o-mini", messages=MESSAGES, stream=True))
    else:
        provider.always(reply("openai/gpt-4o-mini", usage, provider="OpenAI"))
        client.chat.completions.create(model="openai/gpt-4o-mini", messages=MESSAGES)
    has(only(spans()), **{"spendwatch.cost.basis": "reported", "spendwatch.cost.reported": "0.0000702",
                          "spendwatch.cost.upstream": "0.01875", **TOKENS})  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "served", "cost"),
    [
        # gpt-5-mini: 0.25, 0.025 cached, 2 USD per million; flex half of it; priority 0.45, 0.045 and 3.6.
        # 207 fresh, 1024 cached, 47 output tokens.
        ("flex", "flex", "0.000085675"),
        ("flex", "default", "0.00017135"),
        ("auto", "priority", "0.00030843"),
    ],
)
def test_a_call_costs_what_its_tier_does_and_the_tier_is_the_one_that_served(
    provider: Loopback, named: Named, client: openai.OpenAI, asked: Any, served: str, cost: str
) -> None:
    spans = named("openai")
    provider.always(reply("gpt-5-mini-2025-08-07", USAGE, service_tier=served))
    client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, service_tier=asked)
    has(only(spans()), **{"spendwatch.service_tier": served, "spendwatch.cost.basis": "listed",
                          "gen_ai.usage.cost.amount": float(cost), **TOKENS})  # fmt: skip


def test_openais_cache_writes_are_counted_and_priced(provider: Loopback, named: Named, client: openai.OpenAI) -> None:
    spans = named("openai")
    details = {"cached_tokens": 1000, "cache_write_tokens": 2000}
    usage = {"prompt_tokens": 4000, "prompt_tokens_details": details, "completion_tokens": 100, "total_tokens": 4100}
    provider.always(reply("gpt-5.6-luna", usage))
    client.chat.completions.create(model="gpt-5.6-luna", messages=MESSAGES)
    # 1000 fresh at 0.2, 2000 written at 0.25, 1000 cached at 0.02, 100 output at 1.2 USD per million.
    has(only(spans()), **{
        "gen_ai.usage.input_tokens": 4000, "gen_ai.usage.cache_read.input_tokens": 1000,
        "gen_ai.usage.cache_write.input_tokens": 2000, "gen_ai.usage.cost.amount": 0.00084,
    })  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
def test_a_compressed_reply_is_read(provider: Loopback, spans: Spans, client: openai.OpenAI, streamed: bool) -> None:
    def answers(seen: Seen) -> Answer:
        assert "gzip" in seen.headers["accept-encoding"]
        packed = gzip.compress(b"".join(chat_events()) if streamed else CHAT_BODY)
        kind = SSE if streamed else {"content-type": "application/json"}
        pieces = [packed[i : i + 9] for i in range(0, len(packed), 9)]
        return Answer(chunks=pieces, headers={**kind, "content-encoding": "gzip"})

    provider.answers = answers
    if streamed:
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    else:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    has(only(spans()), **{"spendwatch.status": "ok", **TOKENS})


def test_the_sdk_on_httpx2_and_an_app_on_httpx_are_recorded_side_by_side(
    provider: Loopback, spans: Spans, client: openai.OpenAI
) -> None:
    assert type(client._client).__module__.startswith(("httpx2", "openai"))
    provider.always(CHAT_BODY)
    client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert httpx.post(provider.url + PATH, json=ASK).json() == CHAT
    recorded = spans()
    assert len(recorded) == len(provider.seen) == 2
    for span in recorded:
        has(attributes(span), **TOKENS)


HEARD = b'{"text":"hm","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}'


@pytest.mark.parametrize("length", [500, 3_000_000])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_uploads_model_is_known_and_its_bytes_are_sent_as_they_are(
    provider: Loopback, spans: Spans, is_async: bool, length: int
) -> None:
    provider.always(HEARD)
    sound = io.BytesIO(b'RIFF name="model" ' + bytes(length))
    sound.name = "model"
    options: Any = {"model": "gpt-4o-transcribe", "prompt": "the model " * 40, "file": sound}
    if is_async:

        async def main() -> None:
            async with openai.AsyncOpenAI(api_key="sk-x", base_url=provider.url + "/v1", max_retries=0) as client:
                await client.audio.transcriptions.create(**options)

        asyncio.run(main())
    else:
        with openai.OpenAI(api_key="sk-x", base_url=provider.url + "/v1", max_retries=0) as client:
            client.audio.transcriptions.create(**options)
    assert sound.getvalue() in provider.seen[0].body
    has(only(spans()), **{"gen_ai.request.model": "gpt-4o-transcribe", "gen_ai.usage.input_tokens": 14,
                          "gen_ai.usage.output_tokens": 45})  # fmt: skip


def test_an_edit_of_an_image_is_priced_by_the_model_its_form_names(
    provider: Loopback, named: Named, client: openai.OpenAI
) -> None:
    spans = named("openai")
    usage = {"input_tokens": 50, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
             "output_tokens": 60, "output_tokens_details": {"image_tokens": 60}, "total_tokens": 110}  # fmt: skip
    provider.always(json.dumps({"created": 1, "data": [{"b64_json": "x"}], "usage": usage}).encode())
    client.images.edit(model="gpt-image-1", image=("a.png", b"\x89PNG" + bytes(9000), "image/png"), prompt="a model")
    has(only(spans()), **{"gen_ai.request.model": "gpt-image-1", "gen_ai.usage.image.input_tokens": 40,
                          "gen_ai.usage.image.output_tokens": 60, "spendwatch.cost.basis": "listed"})  # fmt: skip
