"""OpenAI's formats wherever they are served, in the variants that documentation, SDKs and other servers show."""

import json
from decimal import Decimal
from typing import Any

import pytest

from spendwatch.wire import recognise
from tests.wire.exchanges import facts, read, request, sse

CHAT = "api.openai.com/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
COUNTS = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
LARGE = "A" * 150_000
FORM = {"content-type": "multipart/form-data; boundary=x"}


def completion(usage: Any = USAGE, *choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    said = choices or ({"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"},)
    return {"id": "c1", "object": "chat.completion", "model": "gpt-x-1", "choices": said, "usage": usage, **members}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **members: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-x-1", "choices": [choice], **members}


def piece(index: int | None, call_id: str | None, name: str | None, arguments: str = "") -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    call: dict[str, Any] = {"type": "function", "function": function}
    if index is not None:
        call["index"] = index
    if call_id is not None:
        call["id"] = call_id
    return chunk({"tool_calls": [call]})


LAST = {"id": "c1", "model": "gpt-x-1", "choices": [], "usage": USAGE}
TEXT, STOP = chunk({"content": "a"}), chunk({}, "stop")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}, COUNTS),
        ({"prompt_tokens": "10", "completion_tokens": "5", "total_tokens": "15"}, COUNTS),
        ({"prompt_tokens": 10.0, "completion_tokens": 5.0, "total_tokens": 15.0}, COUNTS),
        (None, {"input_tokens": None, "output_tokens": None, "finish_reasons": ("stop",)}),
        ({}, {"input_tokens": None, "output_tokens": None}),
        ([1], {"input_tokens": None, "response_model": "gpt-x-1"}),
        ({**USAGE, "cost": "0.0000702"}, {"reported_cost": Decimal("0.0000702")}),
        ({**USAGE, "cost": 7.02e-05}, {"reported_cost": Decimal("0.0000702")}),
        ({**USAGE, "cost": 0}, {"reported_cost": Decimal(0)}),
        ({**USAGE, "cost": None, "is_byok": False}, {"reported_cost": None, "is_byok": False}),
        (
            {**USAGE, "cost": 0.0009375, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.01875}},
            {"reported_cost": Decimal("0.0009375"), "upstream_cost": Decimal("0.01875"), "is_byok": True},
        ),
        (
            {**USAGE, "cost_details": {"upstream_inference_cost": None}},
            {"reported_cost": None, "upstream_cost": None},
        ),
        ({**USAGE, "pydantic_ai_gateway": {"cost_estimate": 3.5e-6}}, {"reported_cost": Decimal("0.0000035")}),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4}},
            {**COUNTS, "cache_read_input_tokens": 3, "cache_write_input_tokens": 4},
        ),
        (
            {**USAGE, "prompt_tokens_details": {"cache_creation": {"ephemeral_5m_input_tokens": 7}}},
            {**COUNTS, "cache_write_input_tokens": 7, "cache_write_5m_input_tokens": "7"},
        ),
        (
            {
                **USAGE,
                "prompt_tokens_details": {"audio_tokens": 3, "image_tokens": 2, "text_tokens": 5},
                "completion_tokens_details": {"audio_tokens": 4, "reasoning_tokens": 0, "text_tokens": 1},
            },
            {**COUNTS, "input_audio_tokens": 3, "input_image_tokens": 2, "output_audio_tokens": 4,
             "reasoning_output_tokens": 0},
        ),
        (
            # Sonar Deep Research: its reasoning stands beside the completion, and the total leaves it out too.
            {"prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196, "reasoning_tokens": 73997,
             "cost": {"input_tokens_cost": 0.1, "total_cost": 0.82}},
            {"output_tokens": 7163, "reasoning_output_tokens": 73997, "reported_cost": Decimal("0.82")},
        ),
    ],
)  # fmt: skip
def test_a_usage_object_in_any_of_its_forms(usage: Any, expected: dict[str, Any]) -> None:
    assert facts(read(CHAT, ASKED, completion(usage)), *expected) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (sse(TEXT, STOP, LAST, "[DONE]"), {**COUNTS, "complete": True, "finish_reasons": ("stop",)}),
        (sse(TEXT, STOP, LAST), {**COUNTS, "complete": True}),
        (sse(TEXT, STOP, "[DONE]"), {"input_tokens": None, "complete": True}),
        (sse(TEXT, STOP), {"input_tokens": None, "complete": False}),
        (sse(TEXT, {**STOP, "usage": USAGE}, "[DONE] "), {**COUNTS, "complete": True}),
        (sse({**TEXT, "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}},
             {**STOP, "usage": USAGE}), COUNTS),
        (sse(TEXT, STOP, LAST, "[DONE]")[:-2], {**COUNTS, "complete": True}),
        (sse(TEXT, STOP, LAST, "[DONE]").replace(b"\n", b"\r\n"), {**COUNTS, "complete": True}),
        (sse(TEXT, STOP, LAST, "[DONE]").replace(b"\n", b"\r"), {**COUNTS, "complete": True}),
        (sse(TEXT, STOP, LAST, "[DONE]").replace(b"\n\n", b"\n"),
         {**COUNTS, "complete": True, "response_id": "c1", "finish_reasons": ("stop",)}),
        (sse(TEXT, STOP, LAST, "[DONE]").replace(b": {", b":{"), {**COUNTS, "complete": True}),
        (b"\xef\xbb\xbf" + sse(TEXT, STOP, LAST), COUNTS),
        (b": OPENROUTER PROCESSING\n\n" + sse(TEXT) + b": OPENROUTER PROCESSING\n\n" + sse(STOP, LAST), COUNTS),
        (b"retry: 9\nid: 1\n" + sse(TEXT) + b"id: 2\nevent: message\n" + sse(STOP, LAST), COUNTS),
        (sse({"id": "", "model": "", "choices": [], "prompt_filter_results": []}, TEXT, STOP,
             {"id": "", "model": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]},
             LAST), {**COUNTS, "response_id": "c1", "response_model": "gpt-x-1", "finish_reasons": ("stop",)}),
    ],
)  # fmt: skip
def test_a_stream_however_it_is_framed(body: bytes, expected: dict[str, Any]) -> None:
    reply = read(CHAT, {**ASKED, "stream": True}, body, headers={"content-type": "text/event-stream"})
    assert facts(reply, *expected) == expected


@pytest.mark.parametrize(
    ("chunks", "tools"),
    [
        ([piece(0, "a", "f"), piece(0, None, None, "{"), piece(1, "b", "g"), piece(1, None, None, "{}")], ("f", "g")),
        ([piece(0, "a", "f", "{"), piece(0, "", "", "}")], ("f",)),
        ([piece(0, "a", "f", "{"), piece(0, "a", "f", "}"), piece(0, "a", "f")], ("f",)),
        ([piece(0, "a", "f", "{"), piece(0, None, "f", "}")], ("f",)),
        ([piece(0, "a", None), piece(0, None, "f", "{}")], ("f",)),
        ([piece(0, "a", "f", "{}"), piece(0, "b", "f", "{}")], ("f", "f")),
        ([piece(0, "", "f", "{}"), piece(0, "", "g", "{}")], ("f", "g")),
        ([piece(0, "a", "f"), piece(1, "a", "f", "{"), piece(1, "a", None, "}"), piece(2, "b", "g", "{}")], ("f", "g")),
        ([piece(0, "a", "f"), piece(0, "z", None, "{}")], ("f",)),
        ([piece(0, "a", "f", "{}"), {"id": "c1", "choices": [{"index": 0, "message": {"content": "", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]}], ("f",)),
        ([piece(None, None, "f", "{}"), piece(None, None, "f", "{}")], ("f", "f")),
        ([chunk({"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}]})],
         ("f",)),
        ([chunk({"function_call": {"name": "f", "arguments": ""}}),
          chunk({"function_call": {"name": "f", "arguments": "{}"}})], ("f",)),
    ],
)  # fmt: skip
def test_a_tool_counts_once_however_its_call_is_cut_up(chunks: list[dict[str, Any]], tools: tuple[str, ...]) -> None:
    body = sse(*chunks, chunk({}, "tool_calls"), LAST, "[DONE]")
    assert read(CHAT, {**ASKED, "stream": True}, body).tool_calls == tools


@pytest.mark.parametrize("shift", range(4))
def test_a_large_call_in_one_chunk_is_read_though_its_middle_is_not_kept(shift: int) -> None:
    code = "x" * shift + '\\"' * 20_000
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": json.dumps({"c": code})}}
    body = sse(chunk({"tool_calls": [call]}, "tool_calls", usage=USAGE), "[DONE]")
    expected = {**COUNTS, "tool_calls": ("f",), "finish_reasons": ("tool_calls",), "complete": True}
    assert facts(read(CHAT, {**ASKED, "stream": True}, body), *expected) == expected


def test_a_text_and_a_tool_call_as_two_choices_of_one_index_are_both_read() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = completion(
        USAGE,
        {"index": 0, "message": {"content": "I'll look."}, "finish_reason": "tool_calls"},
        {"index": 0, "message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"},
    )
    expected = {"finish_reasons": ("tool_calls", "tool_calls"), "choice_count": "2", "tool_calls": ("f",)}
    assert facts(read(CHAT, ASKED, body), *expected) == expected


BROKEN = {"code": 502, "message": "m"}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b"<html>502</html>", (None, None)),
        (401, b"", (None, None)),
        (404, {"error": "Not found"}, (None, None)),
        (422, {"detail": [{"type": "missing", "loc": ["body"], "msg": "m"}]}, (None, None)),
        (404, {"message": "m", "type": "not_found_error", "code": "model_not_found"},
         ("not_found_error", "model_not_found")),
        (400, {"error": {"message": "m", "type": "None", "param": "None", "code": "400"}}, ("None", "400")),
        (400, [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], ("INVALID_ARGUMENT", "400")),
        (404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, (None, "DeploymentNotFound")),
        (400, {"error": {"code": "content_filter", "type": None, "status": 400, "innererror": {"code": "x"}}},
         (None, "content_filter")),
        (400, {"success": False, "errors": [{"code": 7009, "message": "m"}], "result": {}}, (None, "7009")),
        (200, {"error": {"message": "m", "code": 400}, "user_id": "u"}, (None, "400")),
        (200, {"object": "error", "message": "m", "type": "BadRequestError", "code": 40001},
         ("BadRequestError", "40001")),
        (200, completion(USAGE, {"index": 0, "error": BROKEN, "finish_reason": "error"}), (None, "502")),
        (200, completion(None, base_resp={"status_code": 1004, "status_msg": "m"}), (None, "1004")),
        (200, sse(TEXT, {"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "[DONE]"),
         ("BadRequestError", "400")),
        (200, sse(TEXT, {"error": {"object": "error", "message": "m", "type": "ServerError", "code": 500}}),
         ("ServerError", "500")),
        (200, sse(TEXT, {"error_code": "INTERNAL_ERROR", "message": "m"}), (None, "INTERNAL_ERROR")),
        (200, sse(TEXT, {**chunk({"content": ""}, "error"), "error": BROKEN}), (None, "502")),
        (200, sse(TEXT, {**TEXT, "choices": [{"index": 0, "delta": {"content": ""}, "error": BROKEN}]}), (None, "502")),
        (200, sse(TEXT) + b"event: error\n" + sse({"message": "m", "type": "server_error", "code": "x"}),
         ("server_error", "x")),
        (200, sse(TEXT) + b"event: error\ndata: boom\n\n", (None, None)),
        (200, sse(TEXT, {"error": "boom"}), (None, None)),
    ],
)  # fmt: skip
def test_an_error_wherever_it_stands(status: int, body: Any, error: tuple[str | None, str | None]) -> None:
    reply = read(CHAT, ASKED, body, status=status)
    assert reply.is_error
    assert (reply.error_type, reply.error_code) == error


@pytest.mark.parametrize("members", [{"error": None}, {"error": {}}, {"base_resp": {"status_code": 0}}])
def test_a_member_for_errors_that_holds_none_is_no_error(members: dict[str, Any]) -> None:
    assert not read(CHAT, ASKED, completion(**members)).is_error


@pytest.mark.parametrize(
    ("address", "sent", "expected"),
    [
        ("x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=1", {"messages": []},
         {"request_model": "my gpt", "provider_name": "azure.ai.openai"}),
        ("x.openai.azure.com/openai/deployments/g/extensions/chat/completions?api-version=1", {"messages": []},
         {"request_model": "g"}),
        ("x.openai.azure.us/openai/v1/chat/completions", ASKED, {"provider_name": "azure.ai.openai"}),
        ("g.eastus2.inference.ai.azure.com/chat/completions", ASKED, {"provider_name": "azure.ai.inference"}),
        ("x.azure-api.net/openai/deployments/g/chat/completions?api-version=1", {"messages": []},
         {"request_model": "g", "provider_name": "x.azure-api.net"}),
        ("api.openai.com/v1/engines/davinci/completions", {"prompt": "x"},
         {"request_model": "davinci", "operation_name": "text_completion"}),
        ("api.mistral.ai/v1/agents/completions", {"agent_id": "a", "messages": []}, {"operation_name": "chat"}),
        ("api.mistral.ai/v1/fim/completions", {"model": "c", "prompt": "a"}, {"operation_name": "text_completion"}),
        ("adb-1.2.azuredatabricks.net/serving-endpoints/my-gpt/invocations", {"messages": []},
         {"request_model": "my-gpt", "operation_name": "chat", "provider_name": "databricks"}),
        ("adb-1.2.azuredatabricks.net/serving-endpoints/my-bge/invocations", {"input": ["x"]},
         {"request_model": "my-bge", "operation_name": "embeddings"}),
        ("adb-1.2.azuredatabricks.net/serving-endpoints/my-old/invocations", {"prompt": "x"},
         {"request_model": "my-old", "operation_name": "text_completion"}),
        ("gateway.ai.cloudflare.com/v1/account/gateway/compat/chat/completions", ASKED,
         {"provider_name": "cloudflare"}),
        ("gateway.ai.cloudflare.com/v1/account/gateway/azure-openai/resource/gpt/chat/completions?api-version=1",
         {"messages": []}, {"provider_name": "cloudflare", "request_model": "gpt"}),
        ("oai.helicone.ai/v1/chat/completions", ASKED, {"provider_name": "openai"}),
        ("eu-west-1.api.x.ai/v1/chat/completions", ASKED, {"provider_name": "x_ai"}),
        ("llm.newcomer.example/inference/v1/chat/completions", ASKED, {"provider_name": "llm.newcomer.example"}),
        ("llm.newcomer.example/v1/chat/completions/", ASKED, {"provider_name": "llm.newcomer.example"}),
        ("openrouter.ai/api/v1/chat/completions", {**ASKED, "model": "a/b:free"},
         {"request_model": "a/b:free", "provider_name": "openrouter"}),
    ],
)  # fmt: skip
def test_an_address_says_who_is_called_and_what_for(address: str, sent: Any, expected: dict[str, Any]) -> None:
    expected = {**expected, "input_tokens": 10}
    assert facts(read(address, sent, completion()), *expected) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-litellm-response-cost": "4.25e-05"}, {"reported_cost": Decimal("0.0000425"), "provider_name": "litellm"}),
        ({"x-litellm-response-cost": "None"}, {"reported_cost": None, "provider_name": "litellm"}),
        ({"x-portkey-trace-id": "z"}, {"provider_name": "portkey"}),
        ({"x-generation-id": "gen-1"}, {"provider_name": "openrouter", "response_id": "c1"}),
    ],
)
def test_a_gateway_on_a_host_of_its_own_shows_in_its_headers(headers: dict[str, str], expected: dict[str, Any]) -> None:
    assert (
        facts(read("gateway.internal/v1/chat/completions", ASKED, completion(), headers=headers), *expected) == expected
    )


IMAGES = {
    "input_tokens": 50, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}, "output_tokens": 4160,
    "output_tokens_details": {"image_tokens": 4160, "text_tokens": 0}, "total_tokens": 4210,
}  # fmt: skip
IMAGE_COUNTS = {"input_tokens": 50, "output_tokens": 4160, "input_image_tokens": 40, "output_image_tokens": 4160}
SPOKEN = {"model": "tts", "input": "x", "voice": "v"}


@pytest.mark.parametrize(
    ("address", "sent", "body", "expected"),
    [
        ("api.openai.com/v1/images/generations", {"model": "gpt-image-1", "prompt": "x"},
         {"created": 1, "data": [{"b64_json": LARGE}], "usage": IMAGES}, IMAGE_COUNTS),
        ("api.openai.com/v1/images/generations", {"model": "gpt-image-1", "prompt": "x", "stream": True},
         sse({"type": "image_generation.partial_image", "b64_json": LARGE},
             {"type": "image_generation.completed", "b64_json": LARGE, "usage": IMAGES}),
         {**IMAGE_COUNTS, "complete": True}),
        ("api.openai.com/v1/images/edits", {"model": "gpt-image-1", "prompt": "x", "stream": True},
         sse({"type": "image_edit.completed", "usage": IMAGES, "b64_json": LARGE}), {**IMAGE_COUNTS, "complete": True}),
        ("api.openai.com/v1/images/variations", {"model": "dall-e-2"}, {"created": 1, "data": []},
         {"request_model": "dall-e-2", "operation_name": "image_generation"}),
        ("openrouter.ai/api/v1/images", {"model": "g", "prompt": "x"}, {"data": [], "usage": {**USAGE, "cost": "0.04"}},
         {"reported_cost": Decimal("0.04")}),
        ("api.openai.com/v1/audio/speech", {**SPOKEN, "stream_format": "sse"},
         sse({"type": "speech.audio.delta", "audio": LARGE},
             {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}}),
         {"input_tokens": 14, "output_tokens": 101, "complete": True}),
        ("openrouter.ai/api/v1/audio/transcriptions", {"model": "openai/whisper-1", "input_audio": {"data": "x"}},
         {"text": "a", "usage": {"seconds": 9.2, "cost": 0.0008}},
         {"audio_seconds": "9.2", "reported_cost": Decimal("0.0008"), "request_model": "openai/whisper-1"}),
        ("api.openai.com/v1/embeddings", {"model": "e", "input": "x"}, {"data": [], "usage": {"prompt_tokens": 8,
         "total_tokens": 8}}, {"input_tokens": 8, "output_tokens": None, "operation_name": "embeddings"}),
        ("api.voyageai.com/v1/multimodalembeddings", {"model": "v", "inputs": []},
         {"model": "v", "usage": {"text_tokens": 5, "image_pixels": 2000000, "total_tokens": 3576}},
         {"input_tokens": 3576, "operation_name": "embeddings"}),
        ("api.voyageai.com/v1/contextualizedembeddings", {"model": "v", "inputs": []},
         {"model": "v", "usage": {"total_tokens": 14}}, {"input_tokens": 14, "operation_name": "embeddings"}),
        ("api.jina.ai/v1/rerank", {"model": "j", "query": "q", "documents": ["a"]},
         {"model": "j", "usage": {"total_tokens": 815}}, {"input_tokens": 815, "operation_name": "rerank"}),
        ("openrouter.ai/api/v1/rerank", {"model": "j", "query": "q", "documents": ["a"]},
         {"id": "gen-rerank-1", "provider": "Cohere", "usage": {"cost": 0.001, "search_units": 1}},
         {"reported_cost": Decimal("0.001"), "search_units": "1", "serving_provider": "Cohere"}),
        ("api.openai.com/v1/decisions", {"model": "gpt-6-luna", "input": "x", "questions": []},
         {"model": "gpt-6-luna", "answers": [], "usage": {"input_tokens": 168, "input_tokens_details":
          {"cached_tokens": 0, "cache_write_tokens": 100}, "output_tokens": 4, "total_tokens": 172}},
         {"input_tokens": 168, "cache_write_input_tokens": 100, "output_tokens": 4, "operation_name": "decision"}),
        ("api.openai.com/v1/edits", {"model": "text-davinci-edit-001", "input": "x", "instruction": "y"},
         {"object": "edit", "choices": [{"text": "a", "index": 0}, {"text": "b", "index": 1}], "usage": USAGE},
         {**COUNTS, "choice_count": "2", "operation_name": "text_completion"}),
        ("api.openai.com/v1/videos/extensions", {"model": "sora-2", "prompt": "x"}, {"id": "video_3"},
         {"response_id": "video_3", "operation_name": "video_generation"}),
        ("api.openai.com/v1/moderations", {"input": "x"}, {"id": "modr-1", "model": "omni", "results": []},
         {"response_id": "modr-1", "response_model": "omni", "operation_name": "moderation"}),
        ("api.openai.com/v1/videos/video_1/remix", {"prompt": "x"}, {"id": "video_2", "model": "sora-2"},
         {"response_id": "video_2", "operation_name": "video_generation"}),
        ("api.x.ai/v1/videos/edits", {"model": "v", "prompt": "x"}, {"request_id": "r"},
         {"request_model": "v", "operation_name": "video_generation"}),
        ("x.services.ai.azure.com/api/projects/p/threads/t/runs?api-version=v1", {"assistant_id": "a"},
         {"id": "run_1", "object": "thread.run", "model": "gpt", "status": "completed",
          "usage": {**USAGE, "prompt_token_details": {"cached_tokens": 1}}},
         {**COUNTS, "cache_read_input_tokens": 1, "operation_name": "assistants_run"}),
    ],
)  # fmt: skip
def test_what_is_no_chat_is_read_too(address: str, sent: Any, body: Any, expected: dict[str, Any]) -> None:
    assert facts(read(address, sent, body), *expected) == expected


@pytest.mark.parametrize("samples", [b":", b"{", b"[", b"data", b"data:", b"ID3", b"  "])
def test_sound_is_no_text_whatever_it_begins_with(samples: bytes) -> None:
    reply = read("api.openai.com/v1/audio/speech", SPOKEN, samples + bytes(500), headers={"content-type": "audio/pcm"})
    assert facts(reply, "complete", "streamed", "is_error", "note") == {
        "complete": None, "streamed": False, "is_error": False, "note": None
    }  # fmt: skip


def test_a_transcript_in_plain_words_is_no_stream() -> None:
    form = form_of(("file", bytes(90)), ("model", "whisper-1"))
    body = b"identity and data are events\n"
    reply = read("api.openai.com/v1/audio/transcriptions", form, body, headers={"content-type": "text/plain"},
                 sent_headers=FORM)  # fmt: skip
    assert (reply.complete, reply.streamed, reply.note, reply.request_model) == (None, False, None, "whisper-1")


def form_of(*fields: tuple[str, bytes | str]) -> bytes:
    parts = []
    for name, value in fields:
        file = '; filename="model"\r\nContent-Type: audio/mpeg' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        parts.append(f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n")
    return b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize("flag", ["true", "True"])
def test_a_form_is_read_for_its_short_fields_wherever_they_stand(flag: str) -> None:
    form = form_of(("prompt", "the model " * 30), ("file", b"model" * 30), ("model", "gpt-4o-transcribe"),
                   ("stream", flag))  # fmt: skip
    counts = {"input_tokens": 14, "input_token_details": {"audio_tokens": 14}, "output_tokens": 45, "total_tokens": 59}
    body = sse({"type": "transcript.text.delta", "delta": "a"}, {"type": "transcript.text.done", "usage": counts})
    reply = read("api.openai.com/v1/audio/transcriptions", form, body, sent_headers=FORM)
    expected = {"request_model": "gpt-4o-transcribe", "streamed": True, "complete": True, "input_tokens": 14,
                "output_tokens": 45, "input_audio_tokens": 14}  # fmt: skip
    assert facts(reply, *expected) == expected


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("GET", "api.openai.com/v1/responses/resp_1"),
        ("GET", "api.openai.com/v1/responses/resp_1?stream=true"),
        ("POST", "api.openai.com/v1/responses/resp_1/cancel"),
        ("DELETE", "api.openai.com/v1/responses/resp_1"),
        ("GET", "api.openai.com/v1/chat/completions?limit=2"),
        ("GET", "api.openai.com/v1/chat/completions/c1"),
        ("POST", "api.openai.com/v1/chat/completions/c1"),
        ("POST", "api.openai.com/v1/files"),
        ("GET", "api.openai.com/v1/files/file_1/content"),
        ("POST", "api.openai.com/v1/batches/batch_1/cancel"),
        ("POST", "api.openai.com/v1/realtime/client_secrets"),
        ("POST", "api.openai.com/v1/realtime/sessions"),
        ("POST", "api.openai.com/v1/fine_tuning/jobs"),
        ("POST", "api.openai.com/v1/conversations"),
        ("POST", "api.openai.com/v1/containers"),
        ("POST", "api.openai.com/v1/vector_stores/vs_1/search"),
        ("GET", "api.openai.com/v1/threads/t/runs/run_1/steps"),
        ("GET", "api.openai.com/v1/videos"),
        ("GET", "api.openai.com/v1/videos/video_1/content"),
        ("POST", "api.openai.com/v1/videos/characters"),
        ("GET", "openrouter.ai/api/v1/generation?id=gen-1"),
        ("POST", "adb-1.2.azuredatabricks.net/serving-endpoints/my-forecast/invocations"),
    ],
)
def test_what_only_looks_after_calls_is_none(method: str, address: str) -> None:
    assert recognise(request(address, {"model": "m"}, method=method), {}) is None


@pytest.mark.parametrize("address", ["api.openai.com/v1/batches", "api.openai.com/v1/responses/input_tokens"])
def test_a_batch_and_a_count_cost_nothing(address: str) -> None:
    assert not read(address, {"model": "m", "input": "x"}, {"id": "batch_1", "model": "m", "usage": USAGE}).is_inference


RESPONSE: dict[str, Any] = {
    "id": "resp_1", "object": "response", "status": "completed", "error": None, "incomplete_details": None,
    "model": "gpt-y-1", "output": [], "service_tier": "default", "tools": [],
    "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
              "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 15},
    "metadata": {},
}  # fmt: skip
ANSWERED = {**COUNTS, "cache_read_input_tokens": 2, "cache_write_input_tokens": 3, "reasoning_output_tokens": 1}
RESPONSES = "api.openai.com/v1/responses"
QUESTION = {"model": "gpt-y", "input": "x"}
TOOLS = [{"type": "function", "name": f"f{i}", "description": '"usage": {"input_tokens": 1} "status": "x"'} for i in
         range(400)]  # fmt: skip
FAILED = {"status": "failed", "error": {"code": "server_error", "message": "m"}, "usage": None}
SHORT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {**ANSWERED, "finish_reasons": ("completed",), "service_tier": "default"}),
        (SHORT, {**ANSWERED, "finish_reasons": ("max_output_tokens",), "is_error": False}),
        (FAILED, {"input_tokens": None, "finish_reasons": ("failed",), "is_error": True, "error_code": "server_error"}),
        ({"status": "cancelled", "usage": None}, {"finish_reasons": ("cancelled",), "is_error": False}),
        (
            {"status": "queued", "usage": None, "background": True},
            {"finish_reasons": ("queued",), "response_id": "resp_1"},
        ),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
    ],
)
def test_a_response_in_each_of_its_states(members: dict[str, Any], expected: dict[str, Any]) -> None:
    assert facts(read(RESPONSES, QUESTION, {**RESPONSE, **members}), *expected) == expected


def streamed(kind: str, **members: Any) -> bytes:
    """A response as a stream: begun, each item done, over."""
    over = {**RESPONSE, **members}
    begun = {**over, "status": "in_progress", "usage": None, "output": [], "service_tier": "auto", "error": None}
    items = [{"type": "response.output_item.done", "output_index": i, "item": one}
             for i, one in enumerate(over["output"])]  # fmt: skip
    return sse({"type": "response.created", "response": begun}, *items, {"type": kind, "response": over}, names=True)


@pytest.mark.parametrize("tools", [[], TOOLS], ids=["small", "large"])
@pytest.mark.parametrize(
    ("kind", "members", "expected"),
    [
        ("response.completed", {}, {**ANSWERED, "finish_reasons": ("completed",)}),
        ("response.incomplete", SHORT, {**ANSWERED, "finish_reasons": ("max_output_tokens",)}),
        ("response.failed", FAILED, {"finish_reasons": ("failed",), "is_error": True, "error_code": "server_error"}),
    ],
)
def test_a_streamed_response_ends_as_its_last_event_says(
    kind: str, members: dict[str, Any], expected: dict[str, Any], tools: list[Any]
) -> None:
    asked = [{"type": "function_call", "id": f"i{i}", "name": f"f{i}", "arguments": "{}"} for i in range(3)]
    ran = [{"type": "web_search_call", "id": "w", "status": "completed"}]
    body = streamed(kind, output=[*asked, *ran], tools=tools, **members)
    expected = {**expected, "complete": True, "tool_calls": ("f0", "f1", "f2"), "server_tools": "web_search_call",
                "response_id": "resp_1", "response_model": "gpt-y-1"}  # fmt: skip
    assert facts(read(RESPONSES, {**QUESTION, "stream": True}, body), *expected) == expected


@pytest.mark.parametrize("tools", [[], TOOLS], ids=["small", "large"])
def test_a_response_cut_off_in_its_last_event_is_incomplete_and_its_tier_unknown(tools: list[Any]) -> None:
    body = streamed("response.completed", tools=tools)
    reply = read(RESPONSES, {**QUESTION, "stream": True}, body[:-90])
    expected = {"complete": False, "finish_reasons": (), "service_tier": None, "response_id": "resp_1"}
    assert facts(reply, *expected) == expected


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"type": "error", "code": "rate_limit", "message": "m", "param": None}, (None, "rate_limit")),
        ({"type": "error", "error": {"type": "invalid_request_error", "code": "x"}}, ("invalid_request_error", "x")),
    ],
)
def test_an_error_event_ends_a_response(event: dict[str, Any], error: tuple[str | None, str | None]) -> None:
    begun = {"type": "response.created", "response": {**RESPONSE, "usage": None, "status": "in_progress"}}
    reply = read(RESPONSES, {**QUESTION, "stream": True}, sse(begun, event, names=True))
    assert (reply.is_error, reply.complete) == (True, False)
    assert (reply.error_type, reply.error_code) == error
