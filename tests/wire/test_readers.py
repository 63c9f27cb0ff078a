"""What every reader promises: it never raises, stays small, stays linear, and says what it could not read."""

import json
import sys
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reader, Reply, Request, recognise

KEYED = Fingerprinter(b"k" * 32)
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}

ENDPOINTS = [
    ("api.openai.com", "/v1/chat/completions"),
    ("api.openai.com", "/v1/completions"),
    ("api.openai.com", "/v1/responses"),
    ("api.openai.com", "/v1/embeddings"),
    ("api.openai.com", "/v1/images/generations"),
    ("api.openai.com", "/v1/audio/transcriptions"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:generateContent"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:streamGenerateContent"),
    ("api.cohere.com", "/v2/chat"),
    ("api.cohere.com", "/v2/embed"),
    ("ollama.com", "/api/chat"),
    ("ollama.com", "/api/generate"),
    ("api.anthropic.com", "/v1/messages"),
    ("api.anthropic.com", "/v1/complete"),
    ("api.anthropic.com", "/v1/messages/count_tokens"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse-stream"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/invoke"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/invoke-with-response-stream"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:batchEmbedContents"),
    ("generativelanguage.googleapis.com", "/v1beta/interactions"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:predictLongRunning"),
    ("aiplatform.googleapis.com", "/v1/publishers/google/models/m:predict"),
    ("api.cohere.com", "/v1/chat"),
    ("api.cohere.com", "/v1/generate"),
    ("api.openai.com", "/v1/threads/t/runs"),
    ("api.openai.com", "/v1/videos"),
    ("api.deepgram.com", "/v1/listen"),
    ("api.replicate.com", "/v1/predictions"),
    ("us-south.ml.cloud.ibm.com", "/ml/v1/text/generation_stream"),
    ("router.huggingface.co", "/models/m"),
    ("api.aleph-alpha.com", "/complete"),
    ("dashscope.aliyuncs.com", "/api/v1/services/aigc/text-generation/generation"),
    ("lmstudio.example", "/api/v1/chat"),
    ("api.mistral.ai", "/v1/conversations"),
    ("api.mistral.ai", "/v1/ocr"),
    ("us-south.ml.cloud.ibm.com", "/ml/v1/text/embeddings"),
    ("us-south.ml.cloud.ibm.com", "/ml/v1/text/chat"),
    ("lmstudio.example", "/completion"),
]
CALL_PIECE = {"index": 0, "function": {"arguments": "abc" * 99}}
endpoints = pytest.mark.parametrize(("host", "path"), ENDPOINTS, ids=lambda value: value)


def reader(
    host: str, path: str, body: bytes = b'{"model": "m", "input": "x"}', content_type: str = "application/json"
) -> Reader:
    request = Request("POST", host, None, path, {"content-type": content_type}, body)
    # The provider's name takes any body for the format's.
    wire = recognise(request, {host: "lmstudio"} if host == "lmstudio.example" else {})
    assert wire is not None
    return wire.reader(request, KEYED)


def read(
    body: bytes, *, host: str = "api.openai.com", path: str = "/v1/chat/completions", status: int = 200, **options: Any
) -> Reply:
    one = reader(host, path)
    one.head(status, options.pop("headers", JSON))
    one.feed(body)
    return one.finish(options.pop("complete", True))


_names = st.sampled_from(
    [
        "id", "model", "choices", "usage", "message", "delta", "content", "text", "type", "error", "index",
        "tool_calls",
        "function", "name", "arguments", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "cost",
        "prompt_tokens_details", "cached_tokens", "messages", "role", "input", "output", "response", "item", "status",
        "input_tokens", "output_tokens", "cache_creation", "iterations", "stop_reason", "content_block", "provider",
        "billed_units", "tokens", "meta", "done", "done_reason", "eval_count",
        "contents", "parts", "candidates", "usageMetadata", "promptTokenCount", "functionCall", "finishReason", "args",
        "system", "tools", "prompt", "instructions", "stream", "x_groq", "base_resp", "output_index",
        "incomplete_details",
        "stopReason", "toolUse", "toolResult", "inputTokens", "messageStart", "contentBlockDelta", "bytes", "results",
        "outputText", "generation", "generations", "embedding", "embeddings", "predictions", "statistics", "instances",
        "inputText", "chat_history", "event_type", "interaction", "steps", "step", "required_action", "object", "stats",
        "metrics", "completions", "details", "token", "result", "inputs", "response_id", "is_finished", "tool_results",
    ]
)  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=6),
    max_leaves=20,
)


@endpoints
@given(st.binary(max_size=300), st.integers(100, 599), st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_bytes_make_a_reader_raise(host: str, path: str, data: bytes, status: int, complete: bool) -> None:
    one = reader(host, path, body=data)
    one.head(status, {})
    one.feed(data)
    reply = one.finish(complete)
    assert reply.provider_name


@endpoints
@given(json_values, json_values, st.booleans(), st.sampled_from([200, 400]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_json_of_unexpected_types_makes_a_reader_raise(
    host: str, path: str, sent: Any, said: Any, streamed: bool, status: int
) -> None:
    one = reader(host, path, body=json.dumps(sent).encode())
    text = json.dumps(said).encode()
    if streamed:
        text = b"".join(b"data: %s\n\n" % json.dumps(part).encode() for part in (said, sent, {"error": said}))
    one.head(status, EVENTS if streamed else JSON)
    one.feed(text)
    reply = one.finish(True)
    for name in reply.usage.__dataclass_fields__:
        count = getattr(reply.usage, name)
        assert count is None or (type(count) is int and count >= 0)
    assert reply.reported_cost is None or reply.reported_cost >= 0


@endpoints
def test_numbers_that_no_decimal_holds_count_as_absent(host: str, path: str) -> None:
    huge, tiny, far = b"1e99999999999999999999", b"1e-99999999999999999999", b"1e999999999"
    said = b'{"id":"r","model":"m","usage":{"prompt_tokens":%s,"cost":%s,"seconds":%s},"x":[%s]}' % (
        huge,
        tiny,
        far,
        far,
    )
    said = said[:-1] + b',"metrics":{"predict_time":%s},"metadata":{"duration":%s},"tools":%s}' % (far, far, huge)
    one = reader(host, path, body=said)
    one.head(200, JSON)
    one.feed(said)
    reply = one.finish(True)
    assert (reply.usage.input_tokens, reply.reported_cost) == (None, None)
    assert len(repr(reply)) < 10_000


@pytest.mark.parametrize("depth", [500, 100_000])
@endpoints
def test_deep_nesting_is_survived(host: str, path: str, depth: int) -> None:
    deep = b'{"usage":' + b'{"a":[' * depth + b"1" + b"]}" * depth + b"}"
    one = reader(host, path, body=deep)
    one.head(200, JSON)
    one.feed(deep)
    one.finish(True)


def test_a_stream_of_any_length_is_read_in_little_memory() -> None:
    one = reader("api.openai.com", "/v1/chat/completions", b'{"model":"m","stream":true}')
    one.head(200, EVENTS)
    chunk = json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": "word and word "}}]}).encode()
    call = json.dumps(
        {
            "id": "c",
            "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "abc" * 99}}]}}],
        }
    ).encode()
    one.feed(b"data: " + chunk + b"\n\n")
    tracemalloc.start()
    for _ in range(20_000):
        one.feed(b"data: " + chunk + b"\n\n")
        one.feed(b"data: " + call + b"\n\n")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 64 * 1024
    found = one.finish(True).fingerprint
    assert found is not None
    assert found.response_length is not None
    assert found.response_length >= 20_001 * len("word and word ")


def _instructions(data: bytes, piece: int) -> int:
    """Python lines run while a body arrives in pieces of a size: a measure of work without a clock."""
    one = reader("api.openai.com", "/v1/chat/completions")
    one.head(200, EVENTS)
    lines = 0

    def count(*_: Any) -> Any:
        nonlocal lines
        lines += 1
        return count

    sys.settrace(count)
    try:
        for at in range(0, len(data), piece):
            one.feed(data[at : at + piece])
        one.finish(True)
    finally:
        sys.settrace(None)
    return lines


def test_work_grows_with_the_bytes_and_not_with_their_square() -> None:
    event = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"' + b"x" * 3000 + b'"}}]}\n\n'
    once, four = _instructions(event, 1), _instructions(event * 4, 1)
    assert four < 5 * once


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_white_space_and_a_byte_order_mark_before_the_json_are_passed_over(piece: int) -> None:
    body = b"\n \r\n" * 3000 + b'\xef\xbb\xbf{"id": "c", "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'
    one = reader("api.deepseek.com", "/chat/completions")
    one.head(200, JSON)
    for at in range(0, len(body), piece):
        one.feed(body[at : at + piece])
    reply = one.finish(True)
    assert (reply.response_id, reply.usage.input_tokens) == ("c", 3)


def test_a_wrong_content_type_misleads_nobody() -> None:
    stream = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
    assert read(stream, headers=JSON).usage.input_tokens == 3
    assert read(b'{"id":"c","usage":{"prompt_tokens":3}}', headers=EVENTS).usage.input_tokens == 3


def test_a_proxys_page_is_noted_and_an_error_page_is_an_error() -> None:
    page = read(b"<html>Sign in</html>", headers={"content-type": "text/html"})
    assert page.note == "reply is neither JSON nor an event stream (20 bytes)"
    assert not page.is_error
    error = read(b"<html>502 Bad Gateway</html>", status=502, headers={"content-type": "text/html"})
    assert error.is_error
    assert error.note is None


def test_an_error_inside_a_good_stream_is_an_error() -> None:
    stream = (
        b'data: {"id":"gen-1","model":"m","provider":"P","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
        b'data: {"id":"gen-1","error":{"code":502},"choices":[{"index":0,"finish_reason":"error"}]}\n\n'
    )
    reply = read(stream, host="openrouter.ai", path="/api/v1/chat/completions", headers=EVENTS)
    assert (reply.is_error, reply.error_code, reply.error_type, reply.complete) == (True, "502", None, False)
    assert reply.serving_provider == "P"


def test_a_plain_reply_that_broke_off_is_incomplete_and_says_what_its_end_still_tells() -> None:
    whole = b'{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"hello"}}],"usage":{"prompt_tokens":3}}'
    cut = read(whole[:60], complete=False)
    assert (cut.complete, cut.note, cut.usage.input_tokens) == (False, "reply broke off", None)
    assert read(whole).complete is None


def test_an_anthropic_stream_that_broke_off_knows_its_input_and_not_its_output() -> None:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude","usage":'
        b'{"input_tokens":10,"cache_read_input_tokens":90,"output_tokens":1}}}\n\n'
    )
    reply = read(start, host="api.anthropic.com", path="/v1/messages", headers=EVENTS, complete=False)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.complete) == (100, None, False)


def test_the_generation_id_of_the_headers_stands_in_for_one_that_the_body_lacks() -> None:
    headers = {"content-type": "audio/mpeg", "x-generation-id": "gen-tts-1"}
    reply = read(b"ID3\x04", host="openrouter.ai", path="/api/v1/audio/speech", headers=headers)
    assert (reply.response_id, reply.note, reply.operation_name) == ("gen-tts-1", None, "audio_speech")


def test_costs_are_exact() -> None:
    body = (
        b'{"id":"gen-1","usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.1000000000000000055511151231257827}}'
    )
    assert read(body).reported_cost == Decimal("0.1000000000000000055511151231257827")
    ticks = b'{"usage":{"prompt_tokens":1,"completion_tokens":1,"cost_in_usd_ticks":2279400}}'
    assert read(ticks).reported_cost == Decimal("0.00022794")


def test_a_usage_in_a_final_event_too_large_to_keep_is_found_at_its_end() -> None:
    final = {
        "type": "response.completed",
        "response": {
            "id": "r", "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "word " * 40_000}]}],
            "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
        },
    }  # fmt: skip
    created = {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress"}}
    stream = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in (created, final))
    one = reader("api.openai.com", "/v1/responses", b'{"model":"m","stream":true,"input":"x"}')
    one.head(200, EVENTS)
    for at in range(0, len(stream), 4096):
        one.feed(stream[at : at + 4096])
    reply = one.finish(True)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.response_id) == (5, 7, "r")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"prompt_tokens": 390, "completion_tokens": 26, "total_tokens": 513, "reasoning_tokens": 97}, (390, 123)),
        ({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}, (35, 74)),
        ({"prompt_tokens": 5, "total_tokens": 391, "completion_tokens": 11,
          "prompt_tokens_details": {"audio_tokens": 375}}, (380, 11)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"prompt_tokens": 10.0, "completion_tokens": 5.0}, (10, 5)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
    ],
)  # fmt: skip
def test_a_part_left_out_of_its_total_is_found_by_arithmetic(given: dict[str, Any], expected: tuple[Any, Any]) -> None:
    usage = read(json.dumps({"usage": given}).encode()).usage
    assert (usage.input_tokens, usage.output_tokens) == expected


def test_minimax_answers_200_with_an_error_inside() -> None:
    reply = read(b'{"id":"x","choices":null,"base_resp":{"status_code":1004,"status_msg":"login fail"}}')
    assert (reply.is_error, reply.error_code) == (True, "1004")


def test_moonshots_usage_inside_a_choice_is_counted_once() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "cached_tokens": 4}
    stream = b"".join(
        b"data: %s\n\n" % json.dumps(event).encode()
        for event in (
            {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]},
            {"id": "c", "choices": [], "usage": usage},
        )
    )
    reply = read(stream + b"data: [DONE]\n\n", host="api.moonshot.ai", headers=EVENTS)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cache_read_input_tokens) == (9, 2, 4)
    assert reply.provider_name == "moonshot_ai"


def test_tool_names_are_kept_only_when_wanted() -> None:
    body = b'{"choices":[{"index":0,"message":{"tool_calls":[{"function":{"name":"secret","arguments":"{}"}}]}}]}'
    request = Request("POST", "api.openai.com", None, "/v1/chat/completions", JSON, b'{"model":"m"}')
    wire = recognise(request, {})
    assert wire is not None
    for keep in (True, False):
        one = wire.reader(request, KEYED, tool_names=keep)
        one.head(200, JSON)
        one.feed(body)
        reply = one.finish(True)
        assert ("secret" in repr(reply)) is keep
