"""The real openai and anthropic SDKs, which don't notice that they are watched."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import ASK, CHAT_BODY, MESSAGE, SSE, chat_events, message_events
from tests.hooks.test_clients import TOKENS, attributes, has, only

CHAT_TOKENS = TOKENS
MESSAGE_TOKENS = {
    "gen_ai.usage.input_tokens": 311 + 2048 + 512,
    "gen_ai.usage.output_tokens": 83,
    "gen_ai.usage.cache_read.input_tokens": 2048,
    "gen_ai.usage.cache_write.input_tokens": 512,
}
MESSAGES: Any = ASK["messages"]


def answers(seen: Seen) -> Answer:
    """Both providers' ends: a stream where one was asked for."""
    streamed = json.loads(seen.body).get("stream", False)
    if seen.target == "/v1/chat/completions":
        return Answer(chunks=chat_events(), headers=SSE) if streamed else Answer(chunks=[CHAT_BODY])
    if seen.target == "/v1/messages":
        return (
            Answer(chunks=message_events(), headers=SSE) if streamed else Answer(chunks=[json.dumps(MESSAGE).encode()])
        )
    return Answer(status=404, chunks=[b"{}"])


@pytest.fixture
def base(provider: Loopback) -> Loopback:
    provider.answers = answers
    return provider


def gpt(base: Loopback, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key="sk-x", base_url=base.url + "/v1", **{"max_retries": 0, **options})


def agpt(base: Loopback, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="sk-x", base_url=base.url + "/v1", **{"max_retries": 0, **options})


def claude(base: Loopback, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="sk-ant", base_url=base.url, **{"max_retries": 0, **options})


def aclaude(base: Loopback, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="sk-ant", base_url=base.url, **{"max_retries": 0, **options})


def openai_plain(base: Loopback) -> None:
    with gpt(base) as client:
        reply = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 1231


def openai_stream(base: Loopback) -> None:
    with gpt(base) as client:
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        assert [c.choices[0].delta.content for c in stream if c.choices][:2] == ["w0 ", "w1 "]


def openai_stream_helper(base: Loopback) -> None:
    with gpt(base) as client, client.chat.completions.stream(model="gpt-4o-mini", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == "w0 w1 w2 w3 w4 "


def openai_raw(base: Loopback) -> None:
    with gpt(base) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=MESSAGES)
        assert raw.parse().id == "chatcmpl-plain1"
        assert raw.headers["content-type"] == "application/json"


def openai_streaming_response(base: Loopback) -> None:
    with (
        gpt(base) as client,
        client.chat.completions.with_streaming_response.create(model="gpt-4o-mini", messages=MESSAGES) as response,
    ):
        assert json.loads(b"".join(response.iter_bytes()))["id"] == "chatcmpl-plain1"


async def openai_async(base: Loopback) -> None:
    async with agpt(base) as client:
        assert (await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)).id == "chatcmpl-plain1"


async def openai_async_stream(base: Loopback) -> None:
    async with agpt(base) as client:
        stream = await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        assert len([chunk async for chunk in stream]) == 7


async def openai_async_streaming_response(base: Loopback) -> None:
    async with (
        agpt(base) as client,
        client.chat.completions.with_streaming_response.create(model="gpt-4o-mini", messages=MESSAGES) as response,
    ):
        assert (await response.parse()).id == "chatcmpl-plain1"


def anthropic_plain(base: Loopback) -> None:
    with claude(base) as client:
        assert client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES).id == MESSAGE["id"]


def anthropic_stream(base: Loopback) -> None:
    with claude(base) as client:
        events = list(client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES, stream=True))
    assert [event.type for event in events][-1] == "message_stop"


def anthropic_stream_helper(base: Loopback) -> None:
    with (
        claude(base) as client,
        client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES) as stream,
    ):
        assert "".join(stream.text_stream) == "Paris."


def anthropic_raw(base: Loopback) -> None:
    with claude(base) as client:
        raw = client.messages.with_raw_response.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)
        assert raw.parse().id == MESSAGE["id"]


async def anthropic_async(base: Loopback) -> None:
    async with aclaude(base) as client:
        reply = await client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)
        assert reply.id == MESSAGE["id"]


async def anthropic_async_stream(base: Loopback) -> None:
    async with (
        aclaude(base) as client,
        client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES) as stream,
    ):
        assert (await stream.get_final_message()).usage.output_tokens == 83


WAYS: list[tuple[Callable[[Loopback], Awaitable[None] | None], dict[str, int]]] = [
    *(
        (way, CHAT_TOKENS)
        for way in (
            openai_plain,
            openai_stream,
            openai_stream_helper,
            openai_raw,
            openai_streaming_response,
            openai_async,
            openai_async_stream,
            openai_async_streaming_response,
        )
    ),
    *(
        (way, MESSAGE_TOKENS)
        for way in (
            anthropic_plain,
            anthropic_stream,
            anthropic_stream_helper,
            anthropic_raw,
            anthropic_async,
            anthropic_async_stream,
        )
    ),
]


@pytest.mark.parametrize(("way", "tokens"), WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_each_way_to_call_is_one_complete_span(
    way: Callable[[Loopback], Awaitable[None] | None], tokens: dict[str, int], base: Loopback, spans: Spans
) -> None:
    started = way(base)
    if started is not None:
        asyncio.run(started)  # type: ignore[arg-type]
    recorded = spans()
    found = only(recorded)
    has(found, **{"spendwatch.status": "ok", **tokens})
    assert ("gen_ai.request.stream" in found) is ("stream" in way.__name__ and "response" not in way.__name__)


def test_the_listed_cost_is_on_the_span_to_the_last_digit(base: Loopback) -> None:
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter, hosts={f"127.0.0.1:{base.port}": "openai"})
    openai_plain(base)
    assert spendwatch.flush()
    # gpt-4o-mini: 0.15, cached 0.075, output 0.60 USD per million: 207 fresh, 1024 cached, 47 output tokens.
    has(
        only(list(exporter.get_finished_spans())),
        **{
            "gen_ai.provider.name": "openai",
            "spendwatch.cost.basis": "listed",
            "spendwatch.cost.listed": "0.00013605",
            "gen_ai.usage.cost.amount": 0.00013605,
        },
    )


def test_an_sdks_retries_are_one_span_each(base: Loopback, spans: Spans) -> None:
    replies: Iterator[Answer] = iter(
        [
            Answer(status=500, chunks=[b"{}"]),
            Answer(status=429, chunks=[b'{"error":{"type":"rate_limit_error"}}'], headers={"retry-after-ms": "1"}),
            Answer(chunks=[CHAT_BODY]),
        ]
    )
    base.answers = lambda seen: next(replies)
    with gpt(base, max_retries=2) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    found = [attributes(span) for span in spans()]
    assert [f["http.response.status_code"] for f in found] == [500, 429, 200]
    assert [f["spendwatch.status"] for f in found] == ["error", "error", "ok"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, openai.AuthenticationError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_an_sdks_errors_are_its_own(
    status: int, error: type[openai.APIStatusError], base: Loopback, spans: Spans
) -> None:
    body = b'{"error":{"message":"no","type":"some_error","code":null}}'
    base.answers = lambda seen: Answer(status=status, chunks=[body])
    with gpt(base) as client, pytest.raises(error) as raised:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert raised.value.response.content == body
    has(only(spans()), **{"http.response.status_code": status, "error.type": "some_error"})


def test_a_connection_refused_is_the_sdks_error(spans: Spans) -> None:
    with (
        openai.OpenAI(api_key="sk", base_url="http://127.0.0.1:1/v1", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    has(only(spans()), **{"error.type": "ConnectError", "spendwatch.status": "error"})


def test_an_error_in_the_midst_of_a_stream_is_recorded(base: Loopback, spans: Spans) -> None:
    events = [
        *chat_events(done=False, usage=False),
        b'data: {"error":{"message":"gone","type":"server_error","code":502}}\n\n',
    ]
    base.answers = lambda seen: Answer(chunks=events, headers=SSE)
    with gpt(base) as client, pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    has(only(spans()), **{"spendwatch.status": "error", "error.type": "server_error", "http.response.status_code": 200})


def test_a_stream_left_half_way_is_aborted_and_keeps_what_is_known(base: Loopback, spans: Spans) -> None:
    with claude(base) as client:
        stream = client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES, stream=True)
        # Of the events only the first is taken; the server may have sent more.
        next(iter(stream))
        stream.close()
    found = only(spans())
    has(found, **{"spendwatch.status": "aborted", "gen_ai.response.id": MESSAGE["id"]})
    assert found["gen_ai.usage.input_tokens"] == 311 + 2048 + 512


def test_tags_reach_calls_made_in_tasks(base: Loopback, spans: Spans) -> None:
    async def main() -> None:
        async with agpt(base) as client:

            async def one(agent: str) -> None:
                with spendwatch.tags(agent=agent):
                    await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)

            with spendwatch.tags(team="search"):
                await asyncio.gather(*(one(f"a{n}") for n in range(8)))

    asyncio.run(main())
    found = [attributes(span) for span in spans()]
    assert sorted(f["spendwatch.tags.agent"] for f in found) == [f"a{n}" for n in range(8)]
    assert {f["spendwatch.tags.team"] for f in found} == {"search"}
