"""Anthropic's messages wherever they are served, in the variants that its documentation and SDK describe."""

from typing import Any

import pytest

from spendwatch.wire import recognise
from tests.wire.exchanges import facts, read, request, sse

ADDRESS = "api.anthropic.com/v1/messages?beta=true"
SENT: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
VERTEX = "aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic/models"


def message(usage: dict[str, Any], *content: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": list(content),
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **members,
    }  # fmt: skip


def stream(
    start: dict[str, Any], delta: dict[str, Any], *blocks: dict[str, Any], stop: str = "end_turn", names: bool = True
) -> bytes:
    opened = message(start)
    opened["stop_reason"] = None
    events: list[dict[str, Any]] = [{"type": "message_start", "message": opened}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": delta})
    events.append({"type": "message_stop"})
    return sse(*events, names=names)


CACHED = {
    "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}, "output_tokens": 1,
    "service_tier": "standard",
}  # fmt: skip
CACHED_FACTS = {
    "input_tokens": 410, "cache_read_input_tokens": 100, "cache_write_input_tokens": 300,
    "cache_write_5m_input_tokens": "100", "cache_write_1h_input_tokens": 200, "output_tokens": 9,
}  # fmt: skip
COMPACTED = {
    "input_tokens": 162, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0, "output_tokens": 11,
    "iterations": [
        {"type": "compaction", "input_tokens": 99195, "output_tokens": 81, "cache_read_input_tokens": 20,
         "cache_creation_input_tokens": 0},
        {"type": "message", "input_tokens": 162, "output_tokens": 11, "cache_read_input_tokens": 5,
         "cache_creation_input_tokens": 0},
    ],
}  # fmt: skip
FELL_BACK = {
    "input_tokens": 412, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 264,
    "iterations": [
        {"type": "message", "model": "claude-fable-5", "input_tokens": 396, "output_tokens": 8,
         "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
        {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 412, "output_tokens": 264,
         "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
    ],
}  # fmt: skip

USAGES: list[tuple[str, bytes | dict[str, Any], dict[str, Any]]] = [
    ("plain, both lifetimes", message({**CACHED, "output_tokens": 9}), CACHED_FACTS),
    ("streamed, the delta has the output alone", stream(CACHED, {"output_tokens": 9}), CACHED_FACTS),
    ("streamed without event names", stream(CACHED, {"output_tokens": 9}, names=False), CACHED_FACTS),
    ("streamed, the delta repeats the input and says null",
     stream(CACHED, {"input_tokens": 10, "cache_read_input_tokens": None, "output_tokens": 9}), CACHED_FACTS),
    ("the input comes only with the delta (z.ai)",
     stream({"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 7, "output_tokens": 3,
                                                     "cache_read_input_tokens": 2}),
     {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 2}),
    ("no cache was spoken of", message({"input_tokens": 4, "output_tokens": 2}),
     {"input_tokens": 4, "output_tokens": 2, "cache_read_input_tokens": None, "cache_write_input_tokens": None}),
    ("compacted", message(COMPACTED), {"input_tokens": 99382, "output_tokens": 92, "cache_read_input_tokens": 25}),
    ("compacted, streamed",
     stream({"input_tokens": 162, "output_tokens": 1}, {k: v for k, v in COMPACTED.items() if k != "input_tokens"}),
     {"input_tokens": 99382, "output_tokens": 92, "cache_read_input_tokens": 25}),
    ("another model declined first", message(FELL_BACK, model="claude-opus-4-8"),
     {"input_tokens": 412, "output_tokens": 264, "response_model": "claude-opus-4-8",
      "other_model_usage": '[{"type":"message","model":"claude-fable-5","input_tokens":396,"output_tokens":8,'
                           '"cache_read_input_tokens":0,"cache_creation_input_tokens":0}]'}),
    ("another model declined first, streamed",
     stream({"input_tokens": 396, "output_tokens": 8, "cache_creation_input_tokens": 90,
             "cache_creation": {"ephemeral_5m_input_tokens": 90, "ephemeral_1h_input_tokens": 0}}, FELL_BACK),
     {"input_tokens": 412, "output_tokens": 264, "cache_write_5m_input_tokens": None,
      "response_model": "claude-opus-4-8"}),
    ("the passes of a loop of server tools are in the total already",
     message({"input_tokens": 30, "output_tokens": 5, "iterations": [
         {"type": "message", "input_tokens": 10, "output_tokens": 2},
         {"type": "message", "input_tokens": 20, "output_tokens": 3}]}),
     {"input_tokens": 30, "output_tokens": 5, "other_model_usage": None}),
    ("thoughts are a part of the output",
     message({"input_tokens": 4, "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 15}}),
     {"output_tokens": 20, "reasoning_output_tokens": 15}),
    ("batch tier", message({"input_tokens": 4, "output_tokens": 2, "service_tier": "batch"}),
     {"service_tier": "batch"}),
    ("fast mode", message({"input_tokens": 4, "output_tokens": 2, "service_tier": "standard", "speed": "fast"}),
     {"service_tier": "fast"}),
    ("null lifetimes (OpenRouter)", message({"input_tokens": 4, "output_tokens": 2, "cache_creation": None}),
     {"input_tokens": 4, "cache_write_1h_input_tokens": None}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), [case[1:] for case in USAGES], ids=[case[0] for case in USAGES])
def test_every_shape_of_usage_is_counted_once(said: Any, expected: dict[str, Any]) -> None:
    reply = read(ADDRESS, SENT, said)
    assert facts(reply, *expected) == expected
    assert (reply.response_id, reply.finish_reasons) == ("msg_1", ("end_turn",))


TOOLS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "", "signature": "x"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "title": "t"}]},
    {"type": "server_tool_use", "id": "s2", "name": "bash_code_execution", "input": {}},
    {"type": "bash_code_execution_tool_result", "tool_use_id": "s2", "content": {"type": "x"}},
    {"type": "mcp_tool_use", "id": "m1", "name": "lookup", "server_name": "s", "input": {}},
    {"type": "mcp_tool_result", "tool_use_id": "m1", "is_error": False, "content": []},
    {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}},
    {"type": "tool_use", "id": "t2", "name": "get_weather", "input": {}},
    {"type": "text", "text": "", "citations": None},
]
SEARCHED = {"input_tokens": 1, "output_tokens": 2, "server_tool_use": {"web_search_requests": 3}}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_tools_of_the_app_and_of_the_server_are_told_apart(streamed: bool) -> None:
    said = (
        stream({"input_tokens": 1, "output_tokens": 1}, SEARCHED, *TOOLS, stop="tool_use")
        if streamed
        else message(SEARCHED, *TOOLS, stop_reason="tool_use")
    )
    reply = read(ADDRESS, SENT, said)
    assert reply.tool_calls == ("get_weather", "get_weather")
    assert facts(reply, "server_tools", "web_searches", "finish_reasons") == {
        "server_tools": "web_search,bash_code_execution,lookup", "web_searches": "3", "finish_reasons": ("tool_use",),
    }  # fmt: skip


@pytest.mark.parametrize(
    "reason", ["pause_turn", "refusal", "compaction", "model_context_window_exceeded", "max_tokens"]
)
def test_every_reason_to_stop_is_no_error(reason: str) -> None:
    usage = {"input_tokens": 3, "output_tokens": 0}
    for said in (message(usage, stop_reason=reason), stream(usage, {"output_tokens": 0}, stop=reason)):
        reply = read(ADDRESS, SENT, said)
        assert (reply.finish_reasons, reply.is_error) == ((reason,), False)
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == (3, 0)


def error(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"}


GOOGLE = {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}
ERRORS: list[tuple[str, int, Any, str | None, str | None]] = [
    (ADDRESS, 529, error("overloaded_error"), "overloaded_error", None),
    (ADDRESS, 413, b"<html>413 Request Entity Too Large</html>", None, None),
    (f"{VERTEX}/claude-opus-4-1:rawPredict", 429, GOOGLE, "RESOURCE_EXHAUSTED", "429"),
    (f"{VERTEX}/claude-opus-4-1:streamRawPredict", 429, [GOOGLE], "RESOURCE_EXHAUSTED", "429"),
    ("x.services.ai.azure.com/anthropic/v1/messages", 404, {"error": {"code": "DeploymentNotFound", "message": "m"}},
     None, "DeploymentNotFound"),
]  # fmt: skip


@pytest.mark.parametrize(("address", "status", "said", "kind", "code"), ERRORS)
def test_errors_are_named_as_whoever_answers_names_them(
    address: str, status: int, said: Any, kind: str | None, code: str | None
) -> None:
    reply = read(address, {**SENT, "anthropic_version": "vertex-2023-10-16"}, said, status=status)
    assert (reply.is_error, reply.error_type, reply.error_code, reply.note) == (True, kind, code, None)


def test_a_stream_that_fails_or_breaks_off_keeps_the_known_input_and_claims_no_output() -> None:
    start = stream(CACHED, {"output_tokens": 9}).split(b"event: message_delta")[0]
    for rest, kind, complete in (
        (sse(error("overloaded_error"), names=True), "overloaded_error", True),
        (b"", None, False),
    ):
        reply = read(ADDRESS, {**SENT, "stream": True}, start + rest, complete=complete)
        assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.complete) == (410, None, False)
        assert (reply.is_error, reply.error_type) == (kind is not None, kind)


@pytest.mark.parametrize(
    ("address", "provider", "model"),
    [
        ("api.anthropic.com/v1/messages", "anthropic", "claude-sonnet-5"),
        (f"{VERTEX}/claude-sonnet-4-5@20250929:rawPredict", "gcp.vertex_ai", "claude-sonnet-4-5@20250929"),
        (f"europe-west1-{VERTEX}/claude-sonnet-4-5%4020250929:streamRawPredict", "gcp.vertex_ai",
         "claude-sonnet-4-5@20250929"),
        ("aiplatform.us.rep.googleapis.com/v1/projects/p/locations/us/publishers/anthropic/models/claude-x:rawPredict",
         "gcp.vertex_ai", "claude-x"),
        ("x.services.ai.azure.com/anthropic/v1/messages", "azure.ai.inference", "claude-sonnet-5"),
        ("api.deepseek.com/anthropic/v1/messages", "deepseek", "claude-sonnet-5"),
        ("api.z.ai/api/anthropic/v1/messages", "z_ai", "claude-sonnet-5"),
        ("api.moonshot.ai/anthropic/v1/messages", "moonshot_ai", "claude-sonnet-5"),
        ("api.minimax.io/anthropic/v1/messages", "minimax", "claude-sonnet-5"),
        ("bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages", "aws.bedrock", "claude-sonnet-5"),
        ("llm.example:8000/v1/messages", "llm.example", "claude-sonnet-5"),
        ("localhost:11434/v1/messages", "ollama", "claude-sonnet-5"),
    ],
)  # fmt: skip
def test_messages_are_read_wherever_they_are_served(address: str, provider: str, model: str) -> None:
    sent = {k: v for k, v in SENT.items() if "rawpredict" not in address.lower() or k != "model"}
    reply = read(address, {**sent, "anthropic_version": "x"}, message({"input_tokens": 4, "output_tokens": 2}))
    assert (reply.provider_name, reply.request_model, reply.usage.input_tokens) == (provider, model, 4)


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", "api.anthropic.com/v1/messages/count_tokens?beta=true"),
        ("POST", "api.anthropic.com/v1/messages/batches"),
        ("GET", "api.anthropic.com/v1/messages/batches/msgbatch_1/results"),
        ("POST", "api.anthropic.com/v1/messages/batches/msgbatch_1/cancel"),
        ("POST", f"{VERTEX}/count-tokens:rawPredict"),
        ("POST", "api.anthropic.com/v1/files"),
        ("GET", "api.anthropic.com/v1/models"),
    ],
)
def test_counting_and_batches_are_no_spend(method: str, address: str) -> None:
    asked = request(address, {**SENT, "anthropic_version": "vertex-2023-10-16"}, method=method)
    wire = recognise(asked, {})
    if wire is not None:
        one = wire.reader(asked, None)
        one.head(200, {"content-type": "application/json"})
        one.feed(b'{"input_tokens": 14}')
        assert not one.finish(True).is_inference
