"""Google's generateContent, embeddings, predictions and interactions, as its documentation describes them."""

import json
from typing import Any

import pytest

from spendwatch.wire import recognise
from tests.wire.exchanges import facts, read, request, sse

STUDIO = "generativelanguage.googleapis.com/v1beta"
VERTEX = "us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1"
GENERATE = f"{STUDIO}/models/gemini-2.5-flash:generateContent"
STREAM = f"{STUDIO}/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
SENT = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def generated(usage: dict[str, Any] | None, *parts: dict[str, Any], finish: Any = "STOP", **candidate: Any) -> Any:
    one = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **candidate}
    if finish:
        one["finishReason"] = finish
    whole: dict[str, Any] = {"candidates": [one], "modelVersion": "gemini-2.5-flash", "responseId": "r-1"}
    return {**whole, "usageMetadata": usage} if usage is not None else whole


PARTS = {
    "promptTokenCount": 1300, "cachedContentTokenCount": 1024, "candidatesTokenCount": 40, "thoughtsTokenCount": 60,
    "toolUsePromptTokenCount": 200, "totalTokenCount": 1600,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 400}, {"modality": "IMAGE", "tokenCount": 258},
                            {"modality": "AUDIO", "tokenCount": 50}, {"modality": "VIDEO", "tokenCount": 592}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 30}, {"modality": "AUDIO", "tokenCount": 10}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 1024}],
}  # fmt: skip
PARTS_FACTS = {
    "input_tokens": 1500, "output_tokens": 100, "total_tokens": 1600, "cache_read_input_tokens": 1024,
    "reasoning_output_tokens": 60, "input_image_tokens": 258, "input_audio_tokens": 50, "output_audio_tokens": 10,
}  # fmt: skip
NUMBERED = {
    **PARTS,
    "promptTokensDetails": [{"modality": 1, "tokenCount": 400}, {"modality": 2, "tokenCount": 258},
                            {"modality": 4, "tokenCount": 50}],
    "candidatesTokensDetails": [{"modality": 1, "tokenCount": 30}, {"modality": 4, "tokenCount": 10}],
}  # fmt: skip
BLOCKED = {
    "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": "gemini-2.5-flash", "responseId": "r-1",
    "usageMetadata": {"promptTokenCount": 14, "totalTokenCount": 14},
}  # fmt: skip

USAGES: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("every part", GENERATE, generated(PARTS, {"text": "a"}), PARTS_FACTS),
    ("every part, streamed", STREAM,
     sse(generated({"promptTokenCount": 9}, finish=None), generated(PARTS)), PARTS_FACTS),
    ("modalities as numbers", GENERATE, generated(NUMBERED), PARTS_FACTS),
    ("a tier of the Gemini API", GENERATE, generated({"promptTokenCount": 1, "serviceTier": "flex"}),
     {"service_tier": "flex"}),
    ("a tier of Vertex", GENERATE, generated({"promptTokenCount": 1, "trafficType": "ON_DEMAND_PRIORITY"}),
     {"service_tier": "priority"}),
    ("a blocked prompt", GENERATE, BLOCKED,
     {"input_tokens": 14, "output_tokens": 0, "finish_reasons": (), "is_error": False, "complete": None}),
    ("a blocked prompt, streamed", STREAM, sse(BLOCKED),
     {"input_tokens": 14, "output_tokens": 0, "finish_reasons": (), "complete": True}),
    ("an answer without output", GENERATE,
     generated({"promptTokenCount": 14, "totalTokenCount": 14}, finish="MALFORMED_FUNCTION_CALL"),
     {"input_tokens": 14, "output_tokens": 0, "finish_reasons": ("MALFORMED_FUNCTION_CALL",)}),
    ("only thoughts", GENERATE, generated({"promptTokenCount": 3, "thoughtsTokenCount": 9, "totalTokenCount": 12}),
     {"output_tokens": 9, "reasoning_output_tokens": 9}),
    ("two candidates", GENERATE,
     {"candidates": [{"finishReason": "STOP", "index": 0}, {"finishReason": "MAX_TOKENS", "index": 1}],
      "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 9}},
     {"finish_reasons": ("STOP", "MAX_TOKENS"), "choice_count": "2", "output_tokens": 9}),
    ("candidates that include the thoughts", GENERATE,
     generated({"promptTokenCount": 9, "candidatesTokenCount": 50, "thoughtsTokenCount": 40, "totalTokenCount": 59}),
     {"input_tokens": 9, "output_tokens": 50, "reasoning_output_tokens": 40}),
    ("a prompt without what was cached", GENERATE,
     generated({"promptTokenCount": 9, "candidatesTokenCount": 5, "cachedContentTokenCount": 1000,
                "totalTokenCount": 1014}),
     {"input_tokens": 1009, "output_tokens": 5, "cache_read_input_tokens": 1000}),
    ("the last chunk tells of the traffic alone", STREAM,
     sse(generated(PARTS), generated({"trafficType": "ON_DEMAND"}, finish=None)), PARTS_FACTS),
    ("the counts come after the end", STREAM,
     sse(generated(None), {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}}),
     {"input_tokens": 5, "output_tokens": 2, "complete": True}),
]  # fmt: skip


@pytest.mark.parametrize(("address", "said", "expected"), [one[1:] for one in USAGES], ids=[one[0] for one in USAGES])
def test_every_shape_of_usage_is_counted_once(address: str, said: Any, expected: dict[str, Any]) -> None:
    assert facts(read(address, SENT, said), *expected) == expected


def array(separator: str, *chunks: Any) -> bytes:
    return b"[" + separator.encode().join(json.dumps(chunk, indent=1).encode() for chunk in chunks) + b"]"


@pytest.mark.parametrize("separator", [",", "\n,\r\n", ",\r\n", "\n,\n"])
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_stream_as_one_array_is_a_stream_also_when_it_broke_off(separator: str, cut: bool) -> None:
    first = {"promptTokenCount": 5, "totalTokenCount": 5}
    last = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    said = array(separator, generated(first, {"text": "a, b"}, finish=None), generated(last, {"text": "\n,"}))
    reply = read(STREAM.replace("?alt=sse", ""), SENT, said[:-150] if cut else said, complete=not cut)
    assert (reply.complete, reply.usage.input_tokens, reply.response_id) == (not cut, 5, "r-1")
    assert (reply.usage.output_tokens, reply.finish_reasons) == ((None, ()) if cut else (2, ("STOP",)))


def test_tools_of_the_app_and_of_google_are_told_apart() -> None:
    parts: list[dict[str, Any]] = [
        {"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
        {"executableCode": {"language": "PYTHON", "code": "2"}}, {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
        {"toolCall": {"toolType": "GOOGLE_MAPS", "args": {}, "id": "1"}}, {"toolResponse": {"id": "1"}},
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "x"}, {"functionCall": {"name": "g"}},
    ]  # fmt: skip
    said = generated(
        {"promptTokenCount": 1, "candidatesTokenCount": 2}, *parts,
        groundingMetadata={"webSearchQueries": ["a", "b"]},
        urlContextMetadata={"urlMetadata": [{"retrievedUrl": "https://a.example"}]},
    )  # fmt: skip
    for address, body in ((GENERATE, said), (STREAM, sse(said))):
        reply = read(address, SENT, body)
        assert reply.tool_calls == ("f", "g")
        ran = reply.attributes["server_tools"].split(",")
        assert sorted(ran) == ["code_execution", "code_execution", "google_maps", "google_search", "url_context"]
        assert reply.attributes["web_searches"] == "2"


QUOTA = {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": []}}


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [(GENERATE, 429, QUOTA), (STREAM, 429, [QUOTA]), (STREAM, 200, sse(generated(PARTS, finish=None), QUOTA)),
     (f"{STUDIO}/models/gemini-embedding-001:embedContent", 429, QUOTA), (f"{STUDIO}/interactions", 429, QUOTA)],
)  # fmt: skip
def test_errors_are_named_by_their_status(address: str, status: int, said: Any) -> None:
    reply = read(address, {**SENT, "model": "m", "input": "x"}, said, status=status)
    assert (reply.is_error, reply.error_type, reply.error_code) == (True, "RESOURCE_EXHAUSTED", "429")


@pytest.mark.parametrize(
    ("address", "provider", "model"),
    [
        (GENERATE, "gcp.gemini", "gemini-2.5-flash"),
        (f"{STUDIO}/tunedModels/mine-1:generateContent", "gcp.gemini", "tunedModels/mine-1"),
        (f"{VERTEX}/publishers/google/models/gemini-2.5-flash-001:generateContent", "gcp.vertex_ai",
         "gemini-2.5-flash-001"),
        (f"{VERTEX}/endpoints/123456:generateContent", "gcp.vertex_ai", "endpoints/123456"),
        ("aiplatform.googleapis.com/v1/publishers/google/models/gemini-2.5-pro:generateContent", "gcp.vertex_ai",
         "gemini-2.5-pro"),
        ("gateway.example/google/v1beta/models/gemini-2.5-pro:generateContent", "gateway.example", "gemini-2.5-pro"),
    ],
)  # fmt: skip
def test_it_is_read_wherever_and_under_whatever_name_a_model_is_served(address: str, provider: str, model: str) -> None:
    reply = read(address, SENT, generated({"promptTokenCount": 5, "candidatesTokenCount": 2}))
    assert (reply.provider_name, reply.request_model, reply.operation_name) == (provider, model, "generate_content")


IMAGE_DETAILS = [{"modality": "TEXT", "tokenCount": 4}, {"modality": "IMAGE", "tokenCount": 258}]
EMBEDDINGS: list[tuple[str, Any, dict[str, Any]]] = [
    (f"{STUDIO}/models/gemini-embedding-001:embedContent",
     {"embedding": {"values": [0.1]}, "usageMetadata": {"promptTokenCount": 4}},
     {"input_tokens": 4, "request_model": "gemini-embedding-001", "operation_name": "embeddings"}),
    (f"{STUDIO}/models/gemini-embedding-2:batchEmbedContents",
     {"embeddings": [{"values": [0.1]}],
      "usageMetadata": {"promptTokenCount": 262, "promptTokenDetails": IMAGE_DETAILS}},
     {"input_tokens": 262, "input_image_tokens": 258}),
    (f"{VERTEX}/publishers/google/models/gemini-embedding-2:embedContent",
     {"embedding": {"values": [0.1]}, "truncated": False,
      "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}},
     {"input_tokens": 4, "total_tokens": 4, "provider_name": "gcp.vertex_ai"}),
    (f"{VERTEX}/publishers/google/models/text-embedding-005:predict",
     {"predictions": [{"embeddings": {"statistics": {"token_count": 3, "truncated": False}, "values": [0.1]}},
                      {"embeddings": {"statistics": {"token_count": 4.0}, "values": [0.1]}}],
      "metadata": {"billableCharacterCount": 21}},
     {"input_tokens": 7, "operation_name": "embeddings", "billable_characters": "21"}),
    (f"{VERTEX}/publishers/google/models/imagen-4.0-generate-001:predict",
     {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": "AAAA"}]},
     {"input_tokens": None, "operation_name": "image_generation", "request_model": "imagen-4.0-generate-001"}),
    (f"{STUDIO}/models/imagen-4.0-generate-001:predict", {"predictions": [{"mimeType": "image/png"}]},
     {"operation_name": "image_generation", "provider_name": "gcp.gemini"}),
    (f"{VERTEX}/publishers/google/models/veo-3.0-generate-001:predictLongRunning", {"name": "projects/p/operations/1"},
     {"operation_name": "video_generation", "request_model": "veo-3.0-generate-001"}),
]  # fmt: skip


@pytest.mark.parametrize(("address", "said", "expected"), EMBEDDINGS, ids=lambda one: str(one)[-48:])
def test_embeddings_and_predictions_are_read_on_both_hosts(address: str, said: Any, expected: dict[str, Any]) -> None:
    reply = read(address, {"content": {}, "requests": [], "instances": []}, said)
    assert facts(reply, *expected) == expected
    assert reply.note is None


USED = {
    "total_input_tokens": 300, "total_cached_tokens": 64, "total_output_tokens": 100, "total_thought_tokens": 30,
    "total_tool_use_tokens": 7, "total_tokens": 437,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 280}, {"modality": "audio", "tokens": 20}],
    "output_tokens_by_modality": [{"modality": "audio", "tokens": 90}, {"modality": "text", "tokens": 10}],
}  # fmt: skip
STEPS = [
    {"type": "thought"}, {"type": "google_search_call", "arguments": {}}, {"type": "google_search_result"},
    {"type": "function_call", "id": "c", "name": "f", "arguments": {}}, {"type": "model_output", "content": []},
]  # fmt: skip
INTERACTION = {"id": "v1_x", "status": "requires_action", "model": "gemini-3-flash", "object": "interaction"}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_an_interaction_is_read_with_its_modalities_and_tools(streamed: bool) -> None:
    whole = {**INTERACTION, "usage": USED, "steps": STEPS, "service_tier": "standard"}
    events = [
        {"event_type": "interaction.created", "interaction": {**INTERACTION, "status": "in_progress"}},
        *({"event_type": "step.start", "index": at, "step": step} for at, step in enumerate(STEPS)),
        {"event_type": "interaction.completed", "interaction": {k: v for k, v in whole.items() if k != "steps"}},
    ]
    sent = {"model": "gemini-3-flash", "input": "hi", "stream": streamed}
    reply = read(f"{STUDIO}/interactions", sent, sse(*events, "[DONE]", names=True) if streamed else whole)
    expected = {
        "input_tokens": 307, "output_tokens": 130, "total_tokens": 437, "cache_read_input_tokens": 64,
        "reasoning_output_tokens": 30, "input_audio_tokens": 20, "output_audio_tokens": 90, "response_id": "v1_x",
        "finish_reasons": ("requires_action",), "tool_calls": ("f",), "server_tools": "google_search",
        "complete": True if streamed else None, "service_tier": "standard",
    }  # fmt: skip
    assert facts(reply, *expected) == expected


def test_an_interaction_left_early_keeps_the_counts_it_had_told() -> None:
    sofar = {"total_input_tokens": 11, "total_output_tokens": 0, "total_thought_tokens": 68, "total_tokens": 79}
    events = [
        {"event_type": "interaction.created", "interaction": {**INTERACTION, "status": "in_progress"},
         "metadata": {"usage": sofar}},
        {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "a"}},
    ]  # fmt: skip
    reply = read(f"{STUDIO}/interactions", {"model": "m", "input": "hi"}, sse(*events), complete=False)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.complete) == (11, 68, False)


def test_other_publishers_at_vertex_are_read_in_their_own_form() -> None:
    chat = {"model": "mistral-small-2503", "messages": [{"role": "user", "content": "hi"}]}
    said = {"id": "c", "model": "mistral-small-2503", "usage": {"prompt_tokens": 5, "completion_tokens": 2},
            "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}  # fmt: skip
    address = f"{VERTEX}/publishers/mistralai/models/mistral-small-2503"
    for reply in (
        read(f"{address}:rawPredict", chat, said),
        read(f"{address}:streamRawPredict", chat, sse(said, "[DONE]")),
    ):
        assert facts(reply, "wire_format", "provider_name", "input_tokens", "output_tokens", "request_model") == {
            "wire_format": "openai_chat", "provider_name": "gcp.vertex_ai", "input_tokens": 5, "output_tokens": 2,
            "request_model": "mistral-small-2503",
        }  # fmt: skip
    open_model = f"{VERTEX}/endpoints/openapi/chat/completions"
    assert read(open_model, {**chat, "model": "meta/llama-4"}, said).request_model == "meta/llama-4"


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", f"{STUDIO}/models/gemini-2.5-flash:countTokens"),
        ("POST", f"{STUDIO}/models/gemini-2.5-flash:batchGenerateContent"),
        ("POST", f"{VERTEX}/publishers/google/models/gemini-2.5-flash:computeTokens"),
        ("POST", f"{STUDIO}/cachedContents?key=x"),
        ("GET", f"{STUDIO}/interactions/v1_x"),
        ("GET", f"{STUDIO}/models"),
        ("POST", f"{STUDIO}/models/gemini-embedding-001:asyncBatchEmbedContent"),
    ],
)
def test_counting_caching_and_batches_are_no_spend(method: str, address: str) -> None:
    asked = request(address, SENT, method=method)
    wire = recognise(asked, {})
    assert wire is None or not wire.reader(asked, None).is_inference
