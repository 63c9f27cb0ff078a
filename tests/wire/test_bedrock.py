"""Bedrock's event streams: cut from AWS messages, in little memory, with whatever a vendor and a proxy make of them."""

import base64
import json
import sys
import tracemalloc
from struct import pack
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendwatch.wire import Reader, Reply, Request, recognise
from spendwatch.wire.event_stream import EXCEPTION, MessageSplitter

HOST = "bedrock-runtime.us-east-1.amazonaws.com"


def message(name: str, payload: bytes, kind: str = "event") -> bytes:
    """One message as botocore's EventStreamMessage reads it."""
    headers = b""
    for key, value in ((f":{kind}-type", name), (":content-type", "application/json"), (":message-type", kind)):
        headers += pack("B", len(key)) + key.encode() + b"\7" + pack(">H", len(value)) + value.encode()
    prelude = pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += pack(">I", crc32(prelude))
    whole = prelude + headers + payload
    return whole + pack(">I", crc32(whole))


def chunk(body: dict[str, Any]) -> bytes:
    encoded = base64.b64encode(json.dumps(body).encode()).decode()
    return message("chunk", json.dumps({"bytes": encoded, "p": "abcd"}).encode())


def reader(path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Reader:
    sent = json.dumps(body or {"messages": []}).encode()
    request = Request("POST", HOST, None, path, {"content-type": "application/json"}, sent)
    wire = recognise(request, {})
    assert wire is not None
    one = wire.reader(request, None)
    one.head(200, headers or {"content-type": "application/vnd.amazon.eventstream"})
    return one


def read(path: str, *pieces: bytes, **options: Any) -> Reply:
    one = reader(path, **options)
    for piece in pieces:
        one.feed(piece)
    return one.finish(True)


def test_a_message_is_read_as_botocore_reads_it() -> None:
    eventstream = pytest.importorskip("botocore.eventstream")
    data = message("chunk", b'{"a": 1}') + message("throttlingException", b"{}", "exception")
    theirs = eventstream.EventStreamBuffer()
    theirs.add_data(data)
    ours = MessageSplitter().feed(data)
    assert [payload for _, payload in ours] == [one.payload for one in theirs]
    assert [name for name, _ in ours] == [b"chunk", EXCEPTION + b"throttlingException"]


@given(st.lists(st.binary(max_size=200), max_size=6), st.integers(1, 40), st.integers(50, 400))
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_same_messages(payloads: list[bytes], piece: int, limit: int) -> None:
    data = b"".join(message(f"e{at}", payload) for at, payload in enumerate(payloads))
    whole = MessageSplitter(limit).feed(data)
    splitter = MessageSplitter(limit)
    apart = [one for at in range(0, len(data), piece) for one in splitter.feed(data[at : at + piece])]
    assert apart == whole
    assert [name for name, _ in whole] == [f"e{at}".encode() for at in range(len(payloads))]


@given(st.binary(max_size=400), st.integers(1, 50))
def test_bytes_that_are_no_messages_do_no_harm(data: bytes, piece: int) -> None:
    splitter = MessageSplitter()
    for at in range(0, len(data), piece):
        splitter.feed(b"\0" + data[at : at + piece])
    assert splitter.close() == []


def test_a_wrong_checksum_is_passed_over_and_a_length_that_can_not_be_true_ends_the_reading() -> None:
    good = message("metadata", b'{"usage": {"inputTokens": 3}}')
    splitter = MessageSplitter()
    assert len(splitter.feed(good[:-4] + b"xxxx" + good[:8] + b"xxxx" + good[12:])) == 2
    assert splitter.feed(b"\xff" * 16 + good) == []
    assert splitter.broken


def test_a_stream_of_any_length_is_read_in_little_memory() -> None:
    one = reader("/model/m/converse-stream")
    piece = message("contentBlockDelta", b'{"contentBlockIndex": 0, "delta": {"text": "word and word"}}')
    large = message(
        "metadata", b'{"trace": "' + b"x" * 4_000_000 + b'", "usage": {"inputTokens": 7, "outputTokens": 2}}'
    )
    one.feed(piece)
    tracemalloc.start()
    for _ in range(5000):
        one.feed(piece)
    kept, _ = tracemalloc.get_traced_memory()
    for at in range(0, len(large) - 4096, 4096):
        one.feed(large[at : at + 4096])
    middle, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    one.feed(large[at + 4096 :])
    assert kept < 16 * 1024
    assert middle < 160 * 1024
    usage = one.finish(True).usage
    assert (usage.input_tokens, usage.output_tokens) == (7, 2)


def test_work_grows_with_the_bytes_and_not_with_their_square() -> None:
    def lines(data: bytes) -> int:
        splitter = MessageSplitter()
        ran = 0

        def count(*_: Any) -> Any:
            nonlocal ran
            ran += 1
            return count

        sys.settrace(count)
        try:
            for at in range(len(data)):
                splitter.feed(data[at : at + 1])
        finally:
            sys.settrace(None)
        return ran

    one = message("chunk", b"x" * 2000)
    assert lines(one * 4) < 5 * lines(one)


def test_the_counts_of_a_chunk_too_large_to_keep_are_found_at_its_end() -> None:
    metrics = {"inputTokenCount": 7, "outputTokenCount": 149, "cacheReadInputTokenCount": 3}
    body = {"generations": [{"text": "x" * 300_000}], "amazon-bedrock-invocationMetrics": metrics}
    for padding in range(4):
        body["pad"] = "y" * padding
        reply = read("/model/m/invoke-with-response-stream", chunk(dict(sorted(body.items(), reverse=True))))
        assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.complete) == (10, 149, True)


def test_an_exception_inside_a_stream_is_an_error() -> None:
    reply = read(
        "/model/m/converse-stream",
        message("messageStart", b'{"role": "assistant"}'),
        message("modelStreamErrorException", b'{"message": "no"}', "exception"),
    )
    assert (reply.is_error, reply.error_type, reply.complete) == (True, "modelStreamErrorException", False)


def test_cache_writes_of_both_lifetimes_are_told_apart() -> None:
    usage = {
        "inputTokens": 10, "outputTokens": 4, "totalTokens": 164,
        "cacheReadInputTokens": 50, "cacheWriteInputTokens": 100,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 60}, {"ttl": "1h", "inputTokens": 40}],
    }  # fmt: skip
    body = {"output": {"message": {"content": []}}, "stopReason": "end_turn", "usage": usage,
            "serviceTier": {"type": "priority"}}  # fmt: skip
    reply = read("/model/us.anthropic.claude/converse", json.dumps(body).encode(), headers={})
    assert (reply.usage.input_tokens, reply.usage.cache_write_1h_input_tokens) == (160, 40)
    assert reply.attributes["cache_write_5m_input_tokens"] == "60"
    assert (reply.service_tier, reply.request_model) == ("priority", "us.anthropic.claude")


def test_counts_that_a_body_lacks_come_from_the_headers() -> None:
    headers = {
        "content-type": "application/json", "x-amzn-bedrock-input-token-count": "4",
        "x-amzn-bedrock-cache-read-input-token-count": "6", "x-amzn-bedrock-output-token-count": "5",
        "x-amzn-bedrock-service-tier": "flex",
    }  # fmt: skip
    reply = read("/model/m/invoke", b'{"outputs": [{"text": "a", "stop_reason": "stop"}]}', headers=headers)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.service_tier) == (10, 5, "flex")
    headers["x-amzn-bedrock-input-token-count"] = "many"
    assert read("/model/m/invoke", b'{"outputs": []}', headers=headers).usage.input_tokens == 6


@pytest.mark.parametrize(
    ("body", "operation", "tokens"),
    [
        ({"embedding": [1], "inputTextTokenCount": 5}, "embeddings", 5),
        ({"embeddings": {"float": [[1]]}, "id": "x"}, "embeddings", None),
        ({"images": ["aGk="]}, "image_generation", None),
        ({"results": [{"index": 0, "relevance_score": 0.5}]}, "rerank", None),
        ({"generation": "a", "prompt_token_count": 9, "generation_token_count": 1}, "text_completion", 9),
        ({"choices": [{"index": 0, "message": {"content": "a"}}], "usage": {"prompt_tokens": 3}}, "chat", 3),
    ],
)
def test_what_was_done_is_told_by_the_bodys_shape(body: dict[str, Any], operation: str, tokens: int | None) -> None:
    reply = read("/model/arn%3Aaws%3Abedrock%3Ax/invoke", json.dumps(body).encode(), headers={})
    assert (reply.operation_name, reply.usage.input_tokens) == (operation, tokens)
    assert reply.request_model == "arn:aws:bedrock:x"
