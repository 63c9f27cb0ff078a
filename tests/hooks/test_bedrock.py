"""The real boto3 and aiobotocore against a Bedrock on loopback: Converse, InvokeModel and both event streams."""

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import aiobotocore.session
import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks.exchange import live
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback, Seen
from tests.hooks.replies import MESSAGE
from tests.hooks.test_clients import attributes, has, only

MODEL = "anthropic.claude-3-5-haiku-20241022-v1:0"
USAGE = {
    "inputTokens": 311,
    "outputTokens": 83,
    "totalTokens": 2954,
    "cacheReadInputTokens": 2048,
    "cacheWriteInputTokens": 512,
}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Paris."}]}},
    "stopReason": "end_turn",
    "usage": USAGE,
    "metrics": {"latencyMs": 700},
}
TOKENS = {
    "gen_ai.usage.input_tokens": 311 + 2048 + 512,
    "gen_ai.usage.output_tokens": 83,
    "gen_ai.usage.cache_read.input_tokens": 2048,
    "gen_ai.usage.cache_write.input_tokens": 512,
}
ASK: Any = [{"role": "user", "content": [{"text": "Capital of France?"}]}]
INVOKE = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Capital of France?"}],
    }
)
EVENT_STREAM = {"content-type": "application/vnd.amazon.eventstream"}


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of AWS's event stream: lengths, their CRC, headers, payload, the CRC of it all."""
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def conversed(words: int = 3, *, whole: bool = True) -> list[bytes]:
    out = [frame("messageStart", {"role": "assistant"})]
    out += [frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": f"w{n} "}}) for n in range(words)]
    if whole:
        out.append(frame("contentBlockStop", {"contentBlockIndex": 0}))
        out.append(frame("messageStop", {"stopReason": "end_turn"}))
        out.append(frame("metadata", {"usage": USAGE, "metrics": {"latencyMs": 700}}))
    return out


def invoked() -> list[bytes]:
    start = {**MESSAGE, "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Paris."}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 83}},
        {
            "type": "message_stop",
            "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": 311,
                "outputTokenCount": 83,
                "cacheReadInputTokenCount": 2048,
                "cacheWriteInputTokenCount": 512,
            },
        },
    ]
    return [frame("chunk", {"bytes": base64.b64encode(json.dumps(e).encode()).decode()}) for e in events]


def answers(seen: Seen) -> Answer:
    last = seen.target.rpartition("/")[2]
    if last == "converse":
        return Answer(chunks=[json.dumps(CONVERSED).encode()], framing="length")
    if last == "converse-stream":
        return Answer(chunks=conversed(), headers=EVENT_STREAM)
    if last == "invoke":
        return Answer(chunks=[json.dumps(MESSAGE).encode()], framing="length")
    return Answer(chunks=invoked(), headers=EVENT_STREAM)


KEYS: dict[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "AKIAEXAMPLE",
    "aws_secret_access_key": "x",
}
ONCE = {"retries": {"total_max_attempts": 1, "mode": "standard"}}


@pytest.fixture
def bedrock(provider: Loopback) -> Loopback:
    provider.answers = answers
    return provider


@pytest.fixture
def calls(bedrock: Loopback) -> Spans:
    """Like spans, with the loopback known as Bedrock."""
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter, hosts={f"127.0.0.1:{bedrock.port}": "aws.bedrock"})

    def recorded() -> list[Any]:
        assert spendwatch.flush()
        return list(exporter.get_finished_spans())

    return recorded


@pytest.fixture
def client(bedrock: Loopback, calls: Spans) -> Iterator[Any]:
    made = boto3.client("bedrock-runtime", endpoint_url=bedrock.url, config=Config(**ONCE), **KEYS)
    yield made
    made.close()


def converse(client: Any) -> None:
    reply = client.converse(modelId=MODEL, messages=ASK)
    assert reply["output"]["message"]["content"][0]["text"] == "Paris."
    assert reply["usage"]["inputTokens"] == 311


def converse_stream(client: Any) -> None:
    events = list(client.converse_stream(modelId=MODEL, messages=ASK)["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart",
        *["contentBlockDelta"] * 3,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]


def invoke(client: Any) -> None:
    reply = client.invoke_model(modelId=MODEL, body=INVOKE)
    assert json.loads(reply["body"].read())["id"] == MESSAGE["id"]


def invoke_stream(client: Any) -> None:
    events = list(client.invoke_model_with_response_stream(modelId=MODEL, body=INVOKE)["body"])
    assert [json.loads(event["chunk"]["bytes"])["type"] for event in events][-1] == "message_stop"


WAYS = [converse, converse_stream, invoke, invoke_stream]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_way_to_call_is_one_complete_span(way: Callable[[Any], None], client: Any, calls: Spans) -> None:
    way(client)
    found = only(calls())
    has(
        found,
        **{
            "spendwatch.status": "ok",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": MODEL,
            "gen_ai.operation.name": "chat",
            **TOKENS,
        },
    )
    assert ("gen_ai.request.stream" in found) is ("stream" in way.__name__)
    assert not live


def test_an_event_stream_left_half_way_is_aborted(bedrock: Loopback, client: Any, calls: Spans) -> None:
    bedrock.answers = lambda seen: Answer(chunks=conversed(50, whole=False), headers=EVENT_STREAM)
    stream = client.converse_stream(modelId=MODEL, messages=ASK)["stream"]
    assert next(iter(stream)) == {"messageStart": {"role": "assistant"}}
    stream.close()
    has(only(calls()), **{"spendwatch.status": "aborted", "gen_ai.request.model": MODEL})


def test_an_error_is_botocores_own(bedrock: Loopback, client: Any, calls: Spans) -> None:
    headers = {"content-type": "application/json", "x-amzn-errortype": "ThrottlingException"}
    bedrock.answers = lambda seen: Answer(chunks=[b'{"message":"slow down"}'], status=429, headers=headers)
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        client.converse(modelId=MODEL, messages=ASK)
    assert raised.value.response["Error"]["Code"] == "ThrottlingException"
    has(only(calls()), **{"spendwatch.status": "error", "http.response.status_code": 429})


def test_each_of_botocores_retries_is_a_call(bedrock: Loopback, calls: Spans) -> None:
    replies = iter([Answer(status=503, chunks=[b"{}"]), Answer(chunks=[json.dumps(CONVERSED).encode()])])
    bedrock.answers = lambda seen: next(replies)
    retrying = boto3.client(
        "bedrock-runtime",
        endpoint_url=bedrock.url,
        config=Config(retries={"max_attempts": 2, "mode": "standard"}),
        **KEYS,
    )
    converse(retrying)
    retrying.close()
    assert [attributes(span)["http.response.status_code"] for span in calls()] == [503, 200]


async def _aio(bedrock: Loopback, way: str) -> None:
    session = aiobotocore.session.get_session()
    async with session.create_client("bedrock-runtime", endpoint_url=bedrock.url, **KEYS) as client:
        if way == "converse":
            assert (await client.converse(modelId=MODEL, messages=ASK))["usage"]["inputTokens"] == 311
        elif way == "converse_stream":
            reply = await client.converse_stream(modelId=MODEL, messages=ASK)
            assert "metadata" in [event async for event in reply["stream"]][-1]
        elif way == "invoke":
            reply = await client.invoke_model(modelId=MODEL, body=INVOKE)
            assert json.loads(await reply["body"].read())["id"] == MESSAGE["id"]
        else:
            reply = await client.invoke_model_with_response_stream(modelId=MODEL, body=INVOKE)
            assert len([event async for event in reply["body"]]) == 4


@pytest.mark.parametrize("way", [way.__name__ for way in WAYS])
def test_each_way_to_call_asynchronously_is_one_complete_span(way: str, bedrock: Loopback, calls: Spans) -> None:
    asyncio.run(_aio(bedrock, way))
    has(
        only(calls()),
        **{
            "spendwatch.status": "ok",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": MODEL,
            **TOKENS,
        },
    )
    assert not live
