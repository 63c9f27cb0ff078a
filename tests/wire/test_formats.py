"""Formats and variants of which no recording is at hand, as their documentation writes them."""

import json
from decimal import Decimal
from typing import Any

import pytest

from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply, Request, may_be_call, recognise

JSON = {"content-type": "application/json"}


def read(host: str, path: str, sent: Any, *said: Any, headers: dict[str, str] | None = None, **options: Any) -> Reply:
    asked = {**JSON, **options.pop("sent_headers", {})}
    request = Request(options.pop("method", "POST"), host, None, path, asked, json.dumps(sent).encode())
    wire = recognise(request, {})
    assert wire is not None
    one = wire.reader(request, Fingerprinter(b"k"))
    if len(said) == 1:
        one.head(options.pop("status", 200), {**JSON, **(headers or {})})
        one.feed(json.dumps(said[0]).encode())
    else:
        one.head(200, {"content-type": "text/event-stream", **(headers or {})})
        for event in said:
            one.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    return one.finish(True)


DASHSCOPE = ("dashscope-intl.aliyuncs.com", "/api/v1/services/aigc/text-generation/generation")
QWEN = {"model": "qwen-plus", "input": {"messages": [{"role": "user", "content": "hi"}]}}


def test_dashscopes_stream_repeats_its_counts_and_the_last_ones_win() -> None:
    def event(text: str, reason: str, output: int) -> dict[str, Any]:
        return {
            "output": {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]},
            "usage": {"input_tokens": 22, "output_tokens": output, "total_tokens": 22 + output,
                      "prompt_tokens_details": {"cached_tokens": 4}},
            "request_id": "r-1",
        }  # fmt: skip

    reply = read(
        *DASHSCOPE, QWEN, event("a", "null", 1), event("b", "stop", 5), sent_headers={"x-dashscope-sse": "enable"}
    )
    usage = reply.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (22, 5, 4)
    assert (reply.finish_reasons, reply.complete, reply.response_id) == (("stop",), True, "r-1")
    assert (reply.provider_name, reply.request_model) == ("alibaba_cloud", "qwen-plus")


def test_dashscopes_errors_and_embeddings_are_read() -> None:
    error = read(*DASHSCOPE, QWEN, {"code": "InvalidApiKey", "message": "no", "request_id": "r"}, status=401)
    assert (error.is_error, error.error_code) == (True, "InvalidApiKey")
    path = "/api/v1/services/embeddings/text-embedding/text-embedding"
    sent = {"model": "text-embedding-v4", "input": {"texts": ["a"]}}
    reply = read(DASHSCOPE[0], path, sent, {"output": {"embeddings": []}, "usage": {"total_tokens": 6}})
    assert (reply.operation_name, reply.usage.input_tokens) == ("embeddings", 6)


def test_lm_studios_own_chat_is_read_plain_and_streamed() -> None:
    whole = {
        "model_instance_id": "qwen3", "response_id": "resp_1", "output": [{"type": "message", "content": "hello"}],
        "stats": {"input_tokens": 329, "total_output_tokens": 268, "reasoning_output_tokens": 5},
    }  # fmt: skip
    sent = {"model": "qwen3", "input": "hi"}
    plain = read("127.0.0.1", "/api/v1/chat", sent, whole)
    streamed = read(
        "127.0.0.1", "/api/v1/chat", {**sent, "stream": True},
        {"type": "chat.start", "model_instance_id": "qwen3"},
        {"type": "message.delta", "content": "hel"}, {"type": "message.delta", "content": "lo"},
        {"type": "chat.end", "result": whole},
    )  # fmt: skip
    for reply in (plain, streamed):
        usage = reply.usage
        assert (usage.input_tokens, usage.output_tokens, usage.reasoning_output_tokens) == (329, 268, 5)
        assert (reply.response_id, reply.response_model) == ("resp_1", "qwen3")
    assert streamed.complete is True
    assert plain.fingerprint is not None
    assert streamed.fingerprint is not None
    assert plain.fingerprint.response == streamed.fingerprint.response


def test_perplexitys_itemised_cost_and_xais_ticks_are_exact() -> None:
    chat = {"model": "sonar", "messages": []}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": {"request_cost": 0.005, "total_cost": 0.00612}}
    assert read("api.perplexity.ai", "/chat/completions", chat, {"usage": usage}).reported_cost == Decimal("0.00612")
    ticks = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost_in_usd_ticks": 37756000}}
    assert read("api.x.ai", "/v1/chat/completions", chat, ticks).reported_cost == Decimal("0.0037756")


@pytest.mark.parametrize(
    ("host", "path", "headers", "provider"),
    [
        ("llm.example", "/v1/chat/completions", {"x-litellm-response-cost": "0.00051"}, "litellm"),
        ("ai-gateway.vercel.sh", "/v1/chat/completions", {}, "vercel_ai_gateway"),
        ("api.portkey.ai", "/v1/chat/completions", {}, "portkey"),
        ("gateway.ai.cloudflare.com", "/v1/acc/gw/openai/chat/completions", {}, "cloudflare"),
        ("gateway.ai.cloudflare.com", "/v1/acc/gw/compat/chat/completions", {}, "cloudflare"),
    ],
)  # fmt: skip
def test_gateways_are_read_like_what_they_pass_on(host: str, path: str, headers: dict[str, str], provider: str) -> None:
    sent = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    said = {"id": "c", "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    reply = read(host, path, sent, said, headers=headers)
    assert (reply.provider_name, reply.usage.input_tokens, reply.usage.output_tokens) == (provider, 3, 2)
    assert reply.reported_cost == (Decimal("0.00051") if headers else None)


def test_a_tool_of_cohere_v1_and_the_end_of_its_stream_are_seen() -> None:
    request = Request(
        "POST", "api.cohere.com", None, "/v1/chat", JSON, b'{"message":"hi","model":"command-r","stream":true}'
    )
    wire = recognise(request, {})
    assert wire is not None
    one = wire.reader(request, None)
    one.head(200, {"content-type": "application/stream+json"})
    one.feed(b'{"event_type":"stream-start","generation_id":"g"}\n{"event_type":"text-generation","text":"a"}\n')
    end = {
        "event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE",
        "response": {"response_id": "r", "tool_calls": [{"name": "search", "parameters": {}}],
                     "meta": {"tokens": {"input_tokens": 9.0, "output_tokens": 2.0}}},
    }  # fmt: skip
    one.feed(json.dumps(end).encode())
    reply = one.finish(True)
    assert (reply.response_id, reply.tool_calls, reply.complete) == ("r", ("search",), True)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (9, 2)


def test_what_is_polled_is_recognised_and_what_is_only_fetched_is_not() -> None:
    def known(host: str, path: str) -> bool:
        asked = may_be_call("GET", path) and recognise(Request("GET", host, None, path, {}, b""), {}) is not None
        return bool(asked)

    assert known("api.openai.com", "/v1/threads/t/runs/run_1")
    assert known("api.replicate.com", "/v1/predictions/p")
    assert known("api.x.ai", "/v1/videos/v")
    assert not known("api.openai.com", "/v1/threads/t/runs")
    assert not known("api.openai.com", "/v1/threads/t/runs/r/steps")
    assert not known("api.openai.com", "/v1/responses/resp_1")
    assert not known("api.openai.com", "/v1/files/f/content")
    assert not known("langgraph.example", "/threads/t/runs/r")
    assert not known("video.example", "/v1/videos/v")
    assert not may_be_call("DELETE", "/v1/threads/t/runs/run_1")


def test_a_post_to_other_services_paths_is_left_alone() -> None:
    for host, path in (
        ("ml.example", "/model/m/invoke"),
        ("langgraph.example", "/threads/t/runs"),
        ("ml.example", "/v1/models/m:predict"),
        ("phone.example", "/v1/listen"),
        ("huggingface.co", "/api/repos/create"),
    ):
        assert recognise(Request("POST", host, None, path, JSON, b'{"data": 1}'), {}) is None, path
