"""Bedrock's bodies: Converse, and each vendor's own behind InvokeModel, plain and streamed."""

import json
from typing import Any

import pytest

from spendwatch.wire import recognise
from tests.wire.exchanges import facts, read, request
from tests.wire.test_bedrock import chunk, message

HOST = "bedrock-runtime.us-east-1.amazonaws.com"
SENT = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
EVENTS = {"content-type": "application/vnd.amazon.eventstream"}
COUNTS = {"x-amzn-bedrock-input-token-count": "13", "x-amzn-bedrock-output-token-count": "3"}
METRICS = {"amazon-bedrock-invocationMetrics": {
    "inputTokenCount": 13, "outputTokenCount": 3, "invocationLatency": 9, "firstByteLatency": 4}}  # fmt: skip


def stream(*events: tuple[str, dict[str, Any]]) -> bytes:
    return b"".join(message(name, json.dumps(body).encode()) for name, body in events)


CACHED = {
    "inputTokens": 10, "outputTokens": 4, "totalTokens": 1314, "cacheReadInputTokens": 300,
    "cacheWriteInputTokens": 1000, "serverToolUsage": {},
    "cacheDetails": [{"ttl": "1h", "inputTokens": 600}, {"ttl": "5m", "inputTokens": 400}],
}  # fmt: skip
CACHED_FACTS = {
    "input_tokens": 1310, "output_tokens": 4, "total_tokens": 1314, "cache_read_input_tokens": 300,
    "cache_write_input_tokens": 1000, "cache_write_1h_input_tokens": 600, "cache_write_5m_input_tokens": "400",
}  # fmt: skip
BLOCKS: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}}, {"text": "hello"},
    {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}},
    {"toolUse": {"toolUseId": "u", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
]  # fmt: skip
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": BLOCKS}}, "stopReason": "tool_use", "usage": CACHED,
    "metrics": {"latencyMs": 1}, "serviceTier": {"type": "flex"},
}  # fmt: skip
STARTS = [
    ("contentBlockStart", {"contentBlockIndex": at, "start": block})
    for at, block in enumerate(BLOCKS) if "toolUse" in block
]  # fmt: skip
CONVERSED_STREAM = stream(
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "hello"}}), *STARTS,
    ("messageStop", {"stopReason": "tool_use"}),
    ("metadata", {"usage": CACHED, "metrics": {"latencyMs": 1}, "serviceTier": {"type": "flex"}}),
)  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_converse_is_read_with_both_cache_lifetimes_and_tools(streamed: bool) -> None:
    address = f"{HOST}/model/us.anthropic.claude-sonnet-5/converse"
    reply = (
        read(f"{address}-stream", SENT, CONVERSED_STREAM, headers=EVENTS)
        if streamed
        else read(address, SENT, CONVERSED)
    )
    assert facts(reply, *CACHED_FACTS) == CACHED_FACTS
    assert (reply.tool_calls, reply.attributes["server_tools"]) == (("f",), "nova_grounding")
    assert (reply.finish_reasons, reply.service_tier, reply.complete) == (
        ("tool_use",),
        "flex",
        True if streamed else None,
    )


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [("us.openai.gpt-5.6-sol", (12401, 8367, 4032), 12401), ("us.openai.gpt-5.6-sol", (2, 8367, 4032), 12401),
     ("us.anthropic.claude-sonnet-5", (12401, 8367, 4032), 24800), ("openai.gpt-oss-120b-1:0", (30, 0, 0), 30)],
)  # fmt: skip
def test_input_that_holds_what_was_cached_is_not_counted_twice(
    model: str, given: tuple[int, int, int], expected: int
) -> None:
    fresh, cached, written = given
    usage = {"inputTokens": fresh, "outputTokens": 9, "cacheReadInputTokens": cached, "cacheWriteInputTokens": written}
    for address, said in (
        ("converse", {"usage": usage}),
        ("converse-stream", stream(("messageStop", {"stopReason": "end_turn"}), ("metadata", {"usage": usage}))),
    ):
        assert read(f"{HOST}/model/{model}/{address}", SENT, said).usage.input_tokens == expected


CLAUDE = {
    "id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "a"}], "usage": {"input_tokens": 5, "output_tokens": 3,
    "cache_creation_input_tokens": 8, "cache_read_input_tokens": 0, "cache_creation":
    {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 8}},
}  # fmt: skip
TOOL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("anthropic.claude-sonnet-5", CLAUDE,
     {"input_tokens": 13, "output_tokens": 3, "cache_write_1h_input_tokens": 8, "response_id": "msg_bdrk_1"}),
    ("anthropic.claude-v2:1", {"type": "completion", "completion": "a", "stop_reason": "stop_sequence", "stop": "x"},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("stop_sequence",),
      "operation_name": "text_completion"}),
    ("amazon.nova-pro-v1:0",
     {"output": {"message": {"content": [{"toolUse": {"name": "f", "toolUseId": "t", "input": {}}}]}},
      "stopReason": "tool_use", "usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 16,
                                          "cacheReadInputTokenCount": 8, "cacheWriteInputTokenCount": 0}},
     {"input_tokens": 13, "output_tokens": 3, "cache_read_input_tokens": 8, "tool_calls": ("f",)}),
    ("amazon.titan-text-premier-v1:0",
     {"inputTextTokenCount": 13, "results": [{"tokenCount": 3, "outputText": "a", "completionReason": "FINISH"}]},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("FINISH",), "operation_name": "text_completion"}),
    ("meta.llama4-scout-17b-instruct-v1:0",
     {"generation": "a", "prompt_token_count": 13, "generation_token_count": 3, "stop_reason": "stop"},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("stop",)}),
    ("mistral.mistral-7b-instruct-v0:2", {"outputs": [{"text": "a", "stop_reason": "length"}]},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("length",)}),
    ("mistral.mistral-large-2407-v1:0",
     {"choices": [{"index": 0, "message": {"role": "assistant", "content": "", "tool_calls": [TOOL]},
                   "stop_reason": "tool_calls"}]},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("tool_calls",), "tool_calls": ("f",)}),
    ("us.deepseek.r1-v1:0", {"choices": [{"text": "a", "stop_reason": "stop"}]},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("stop",)}),
    ("qwen.qwen3-32b-v1:0",
     {"id": "chatcmpl-1", "model": "qwen.qwen3-32b-v1:0", "choices": [{"index": 0, "message": {"content": "a"},
      "finish_reason": "stop"}], "usage": {"prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16}},
     {"input_tokens": 13, "output_tokens": 3, "total_tokens": 16, "response_id": "chatcmpl-1"}),
    ("cohere.command-r-plus-v1:0",
     {"response_id": "r/1", "text": "a", "generation_id": "g", "finish_reason": "COMPLETE", "chat_history": []},
     {"input_tokens": 13, "output_tokens": 3, "finish_reasons": ("COMPLETE",), "operation_name": "chat"}),
    ("ai21.jamba-1-5-large-v1:0",
     {"id": "c", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
      "usage": {"prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16}, "model": "jamba"},
     {"input_tokens": 13, "output_tokens": 3, "response_id": "c"}),
    ("cohere.embed-multilingual-v3", {"id": "e", "embeddings": [[0.1]], "texts": ["a"], "response_type": "x"},
     {"input_tokens": 13, "operation_name": "embeddings", "response_id": "e"}),
    ("amazon.titan-embed-text-v2:0",
     {"embedding": [0.1], "embeddingsByType": {"float": [0.1]}, "inputTextTokenCount": 13},
     {"input_tokens": 13, "operation_name": "embeddings"}),
    ("amazon.nova-canvas-v1:0", {"images": ["AAAA"], "error": None}, {"operation_name": "image_generation"}),
    ("stability.sd3-5-large-v1:0", {"seeds": [1], "finish_reasons": [None], "images": ["AAAA"]},
     {"operation_name": "image_generation", "is_error": False}),
    ("amazon.rerank-v1:0", {"results": [{"index": 0, "relevance_score": 0.4}]}, {"operation_name": "rerank"}),
    ("arn:aws:bedrock:us-east-1:1:imported-model/x",
     {"generation": "a", "prompt_token_count": None, "generation_token_count": None, "stop_reason": "stop"},
     {"input_tokens": 13, "output_tokens": 3, "request_model": "arn:aws:bedrock:us-east-1:1:imported-model/x"}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "said", "expected"), BODIES, ids=[one[0] for one in BODIES])
def test_every_vendors_body_is_read(model: str, said: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in (model, model.replace(":", "%3A").replace("/", "%2F")):
        reply = read(f"{HOST}/model/{name}/invoke", SENT, said, headers=COUNTS)
        assert facts(reply, *expected) == expected
        assert (reply.request_model, reply.provider_name, reply.note) == (model, "aws.bedrock", None)


def test_what_a_body_does_not_say_of_the_cache_the_headers_do() -> None:
    headers = {**COUNTS, "x-amzn-bedrock-cache-read-input-token-count": "2",
               "x-amzn-bedrock-cache-write-input-token-count": "0"}  # fmt: skip
    reply = read(f"{HOST}/model/mistral.x/invoke", SENT, {"outputs": [{"text": "a"}]}, headers=headers)
    assert facts(reply, "input_tokens", "cache_read_input_tokens", "cache_write_input_tokens") == {
        "input_tokens": 15, "cache_read_input_tokens": 2, "cache_write_input_tokens": 0,
    }  # fmt: skip


LAST: list[tuple[str, list[dict[str, Any]], tuple[str, ...]]] = [
    ("anthropic.claude-sonnet-5",
     [{"type": "message_start", "message": {**CLAUDE, "usage": {"input_tokens": 13, "output_tokens": 1}}},
      {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
      {"type": "message_stop", **METRICS}], ("end_turn",)),
    ("amazon.nova-lite-v1:0",
     [{"messageStart": {"role": "assistant"}}, {"contentBlockDelta": {"delta": {"text": "a"}, "contentBlockIndex": 0}},
      {"messageStop": {"stopReason": "max_tokens"}},
      {"metadata": {"usage": {"inputTokens": 13, "outputTokens": 3}, "metrics": {}, "trace": {}}, **METRICS}],
     ("max_tokens",)),
    ("amazon.titan-text-express-v1",
     [{"outputText": "a", "index": 0, "totalOutputTextTokenCount": None, "completionReason": None,
       "inputTextTokenCount": 13},
      {"outputText": "b", "index": 0, "totalOutputTextTokenCount": 3, "completionReason": "FINISH",
       "inputTextTokenCount": None, **METRICS}], ("FINISH",)),
    ("meta.llama3-3-70b-instruct-v1:0",
     [{"generation": "a", "prompt_token_count": 13, "generation_token_count": 1, "stop_reason": None},
      {"generation": "", "prompt_token_count": None, "generation_token_count": 3, "stop_reason": "stop", **METRICS}],
     ("stop",)),
    ("mistral.mixtral-8x7b-instruct-v0:1",
     [{"outputs": [{"text": "a", "stop_reason": None}]}, {"outputs": [{"text": "", "stop_reason": "stop"}], **METRICS}],
     ("stop",)),
    ("mistral.mistral-large-2407-v1:0",
     [{"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "stop_reason": None}]},
      {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "stop_reason": "stop"}], **METRICS}],
     ("stop",)),
    ("us.deepseek.r1-v1:0",
     [{"choices": [{"text": "a", "stop_reason": None}]}, {"choices": [{"text": "", "stop_reason": "stop"}], **METRICS}],
     ("stop",)),
    ("openai.gpt-oss-120b-1:0",
     [{"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], "model": "m"},
      {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "model": "m", **METRICS}],
     ("stop",)),
    ("cohere.command-r-v1:0",
     [{"text": "a", "is_finished": False, "event_type": "text-generation"},
      {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "a"},
       **METRICS}],
     ("COMPLETE",)),
]  # fmt: skip


@pytest.mark.parametrize(("model", "chunks", "reasons"), LAST, ids=[one[0] for one in LAST])
def test_every_vendors_stream_ends_with_amazons_counts(
    model: str, chunks: list[dict[str, Any]], reasons: tuple[str, ...]
) -> None:
    said = b"".join(map(chunk, chunks))
    address = f"{HOST}/model/{model}/invoke-with-response-stream"
    reply = read(address, SENT, said, headers=EVENTS)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.complete) == (13, 3, True)
    assert reply.finish_reasons == reasons
    cut = read(address, SENT, said[:-9], headers=EVENTS, complete=False)
    assert cut.complete is False or model.startswith("amazon.nova")
    assert cut.usage.output_tokens is None or model.startswith("anthropic")


COMMON = "com.amazon.coral.service#ThrottlingException"
ERRORS: list[tuple[str, int, Any, dict[str, str], str]] = [
    ("converse", 429, {"message": "m"}, {"x-amzn-errortype": "ThrottlingException:http://internal/"},
     "ThrottlingException"),
    ("converse", 429, {"__type": COMMON, "message": "m"}, {}, "ThrottlingException"),
    ("invoke", 429, {"Message": "m", "__type": "ThrottlingException"}, {}, "ThrottlingException"),
    ("converse-stream", 200, stream(("messageStart", {"role": "assistant"})) +
     message("modelStreamErrorException", b'{"message":"m"}', "exception"), EVENTS, "modelStreamErrorException"),
    ("invoke-with-response-stream", 200, chunk({"outputText": "a"}) +
     message("internalServerException", b'{"message":"m"}', "exception"), EVENTS, "internalServerException"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "status", "said", "headers", "kind"), ERRORS)
def test_errors_are_named_by_header_body_or_message(
    verb: str, status: int, said: Any, headers: dict[str, str], kind: str
) -> None:
    reply = read(f"{HOST}/model/m/{verb}", SENT, said, status=status, headers=headers)
    assert (reply.is_error, reply.error_type, reply.complete in (None, False)) == (True, kind, True)


@pytest.mark.parametrize(
    "host",
    ["bedrock-runtime.eu-west-3.amazonaws.com", "bedrock-runtime-fips.us-east-1.amazonaws.com",
     "bedrock-runtime.us-gov-west-1.amazonaws.com", "bedrock-runtime.cn-north-1.amazonaws.com.cn",
     "bedrock-runtime.us-east-1.api.aws", "vpce-0a1-b2.bedrock-runtime.us-east-1.vpce.amazonaws.com"],
)  # fmt: skip
def test_bedrock_is_known_at_each_of_its_hosts(host: str) -> None:
    reply = read(f"{host}/model/amazon.nova-micro-v1:0/converse", SENT, CONVERSED)
    assert (reply.provider_name, reply.usage.input_tokens) == ("aws.bedrock", 1310)


def test_guardrails_alone_and_token_counts_are_no_inference() -> None:
    for path in ("/guardrail/g/version/1/apply", "/model/m/count-tokens", "/model-invocation-job"):
        asked = request(f"{HOST}{path}", {"content": [], "input": {}})
        wire = recognise(asked, {})
        assert wire is None or not wire.reader(asked, None).is_inference
