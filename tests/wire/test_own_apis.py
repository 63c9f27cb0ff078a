"""APIs that are one provider's own, in the variants that its documentation describes."""

from typing import Any

import pytest

from spendwatch.wire import recognise
from tests.wire.exchanges import facts, lines, read, request, sse

USED = {"prompt_tokens": 188, "completion_tokens": 55, "total_tokens": 7355, "connector_tokens": 7112,
        "connectors": {"web_search": 1}}  # fmt: skip
ENTRIES = [
    {"type": "tool.execution", "name": "web_search", "id": "t"},
    {"type": "function.call", "id": "f1", "name": "get", "tool_call_id": "x", "arguments": "{}"},
    {"type": "message.output", "content": "a", "id": "msg", "model": "mistral-medium-2505", "role": "assistant"},
]
CONVERSED = {"object": "conversation.response", "conversation_id": "conv_1", "outputs": ENTRIES, "usage": USED}
CONVERSED_STREAM = sse(
    {"type": "conversation.response.started", "conversation_id": "conv_1"},
    {"type": "tool.execution.started", "name": "web_search", "id": "t"}, {"type": "tool.execution.done", "id": "t"},
    {"type": "function.call.delta", "id": "f1", "name": "get", "tool_call_id": "x", "arguments": "{"},
    {"type": "function.call.delta", "id": "f1", "name": "get", "tool_call_id": "x", "arguments": "}"},
    {"type": "message.output.delta", "id": "msg", "content": "a", "model": "mistral-medium-2505"},
    {"type": "conversation.response.done", "usage": USED}, names=True,
)  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/conversations/conv_1", "/v1/conversations/conv_1/restart"])
@pytest.mark.parametrize(("said", "complete"), [(CONVERSED, None), (CONVERSED_STREAM, True)], ids=["plain", "streamed"])
def test_a_turn_of_mistrals_conversations_has_an_id_of_its_own_and_counts_its_connectors(
    path: str, said: Any, complete: bool | None
) -> None:
    reply = read(f"api.mistral.ai{path}", {"inputs": "hi", "model": "mistral-medium-latest"}, said)
    expected = {
        "input_tokens": 7300, "output_tokens": 55, "total_tokens": 7355, "tool_calls": ("get",), "response_id": "msg",
        "server_tools": "web_search", "response_model": "mistral-medium-2505", "complete": complete, "is_error": False,
        "operation_name": "chat",
    }  # fmt: skip
    assert facts(reply, *expected) == expected


def test_reading_a_conversation_again_is_no_call_and_openais_conversations_are_none() -> None:
    for method, address in (("GET", "api.mistral.ai/v1/conversations/conv_1"),
                            ("GET", "api.mistral.ai/v1/conversations/conv_1/history"),
                            ("POST", "api.openai.com/v1/conversations")):  # fmt: skip
        assert recognise(request(address, {"inputs": "a"}, method=method), {}) is None


CHAT = {"id": "c", "model": "m", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
COUNTED = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
LLAMA = {
    "index": 0, "content": "a", "stop": True, "model": "qwen", "tokens_predicted": 7, "tokens_evaluated": 15,
    "stop_type": "limit", "tokens_cached": 21, "timings": {"cache_n": 10, "prompt_n": 5, "predicted_n": 7},
}  # fmt: skip
LLAMA_FACTS = {
    "input_tokens": 15, "output_tokens": 7, "cache_read_input_tokens": 10, "finish_reasons": ("limit",),
    "response_model": "qwen", "operation_name": "text_completion",
}  # fmt: skip
WATSONX = "us-south.ml.cloud.ibm.com/ml/v1/text"
DASHSCOPE = "dashscope-intl.aliyuncs.com/api/v1/services"
OLLAMA = "localhost:11434/api/chat"
MESSAGES = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

WORKERS = "api.cloudflare.com/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct"
RAN = {"response": "a", "tool_calls": [{"name": "f", "arguments": {"a": 1}}], "usage": COUNTED}

CASES: list[tuple[str, str, Any, Any, dict[str, Any]]] = [
    ("cloudflare", WORKERS, {"messages": [{"role": "user", "content": "hi"}]},
     {"result": RAN, "success": True, "errors": [], "messages": []},
     {"input_tokens": 3, "output_tokens": 2, "request_model": "@cf/meta/llama-3.1-8b-instruct", "tool_calls": ("f",),
      "operation_name": "chat", "provider_name": "cloudflare", "is_error": False}),
    ("cloudflare, streamed", WORKERS, {"messages": [{"role": "user", "content": "hi"}], "stream": True},
     sse({"response": "a", "p": "abc"}, {"response": "b"}, {"response": "", "usage": COUNTED}, "[DONE]"),
     {"input_tokens": 3, "output_tokens": 2, "complete": True}),
    ("cloudflare's gateway, a chat completion inside",
     "gateway.ai.cloudflare.com/v1/acc/gw/workers-ai/@cf/openai/gpt-oss-120b", {"messages": []},
     {"result": {**CHAT, "usage": COUNTED}, "success": True, "errors": []},
     {"input_tokens": 3, "finish_reasons": ("stop",), "request_model": "@cf/openai/gpt-oss-120b", "response_id": "c"}),
    ("cloudflare's embeddings", WORKERS, {"text": ["a"]}, {"result": {"shape": [1, 2], "data": [[0.1, 0.2]]}},
     {"operation_name": "embeddings", "input_tokens": None, "note": None}),
    ("cloudflare fails", WORKERS, {"prompt": "a"},
     {"result": None, "success": False, "errors": [{"code": 5007, "message": "No such model"}]},
     {"is_error": True, "error_code": "5007"}),
    ("mistral fim", "codestral.mistral.ai/v1/fim/completions", {"model": "codestral", "prompt": "def", "suffix": "x"},
     {**CHAT, "usage": COUNTED}, {"input_tokens": 3, "output_tokens": 2, "operation_name": "text_completion"}),
    ("mistral's cache", "api.mistral.ai/v1/chat/completions", MESSAGES,
     {**CHAT, "usage": {**COUNTED, "num_cached_tokens": 2}}, {"input_tokens": 3, "cache_read_input_tokens": 2}),
    ("mistral ocr", "api.mistral.ai/v1/ocr", {"model": "mistral-ocr-latest", "document": {}},
     {"pages": [{"index": 0, "markdown": "x"}], "model": "mistral-ocr-2505", "usage_info": {"pages_processed": 2}},
     {"pages": "2", "response_model": "mistral-ocr-2505", "input_tokens": None, "operation_name": "ocr"}),
    ("mistral's older transcription", "api.mistral.ai/v1/audio/transcriptions", {"model": "voxtral"},
     {"model": "voxtral", "text": "x", "usage": {"prompt_audio_seconds": 203, "prompt_tokens": 4,
                                                "total_tokens": 3264, "completion_tokens": 635}},
     {"input_tokens": 2629, "input_audio_tokens": 2625, "output_tokens": 635, "audio_seconds": "203"}),
    ("llama.cpp completion", "localhost:8080/completion", {"prompt": "p", "n_predict": 7}, LLAMA, LLAMA_FACTS),
    ("llama.cpp completion, streamed", "localhost:8080/completion", {"prompt": "p", "n_predict": 7, "stream": True},
     sse({"index": 0, "content": "a", "stop": False, "tokens_predicted": 1, "tokens_evaluated": 15}, LLAMA),
     {**LLAMA_FACTS, "complete": True}),
    ("llama.cpp completion of two prompts", "localhost:8080/completion", {"prompt": ["p", "q"], "n_predict": 7},
     [LLAMA, LLAMA], {"input_tokens": 30, "output_tokens": 14, "finish_reasons": ("limit", "limit")}),
    ("llama.cpp infill", "localhost:8080/infill", {"input_prefix": "p", "input_suffix": "s"}, LLAMA, LLAMA_FACTS),
    ("llama.cpp chat without a usage", "localhost:8080/v1/chat/completions", {**MESSAGES, "stream": True},
     sse({**CHAT, "choices": [{"index": 0, "delta": {"content": "a"}}]},
         {**CHAT, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
          "timings": {"cache_n": 10, "prompt_n": 5, "predicted_n": 7}}, "[DONE]"),
     {"input_tokens": 15, "output_tokens": 7, "cache_read_input_tokens": 10, "complete": True}),
    ("watsonx embeddings", f"{WATSONX}/embeddings?version=2024-05-31", {"model_id": "ibm/slate", "inputs": ["a"]},
     {"model_id": "ibm/slate", "results": [{"embedding": [0.1]}], "input_token_count": 10},
     {"input_tokens": 10, "response_model": "ibm/slate", "operation_name": "embeddings"}),
    ("watsonx ranking", f"{WATSONX}/rerank?version=2024-05-31", {"model_id": "ce", "query": "q", "inputs": []},
     {"model_id": "ce", "results": [{"index": 0, "score": 0.7}], "input_token_count": 10},
     {"input_tokens": 10, "operation_name": "rerank", "note": None}),
    ("watsonx chat, streamed", f"{WATSONX}/chat_stream?version=2024-05-31", {"model_id": "ibm/granite", "messages": []},
     sse({"id": "c", "model_id": "ibm/granite", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
         {"id": "c", "model_id": "ibm/granite", "choices": [], "usage": COUNTED}),
     {"input_tokens": 3, "output_tokens": 2, "request_model": "ibm/granite", "complete": True}),
    ("dashscope ranking", f"{DASHSCOPE}/rerank/text-rerank/text-rerank", {"model": "gte-rerank", "input": {}},
     {"output": {"results": []}, "usage": {"total_tokens": 7}, "request_id": "r"},
     {"input_tokens": 7, "operation_name": "rerank", "response_id": "r"}),
    ("dashscope with a picture", f"{DASHSCOPE}/aigc/multimodal-generation/generation", {"model": "vl", "input": {}},
     {"output": {"choices": [{"finish_reason": "stop", "message": {"content": [{"text": "b"}]}}]}, "request_id": "r",
      "usage": {"output_tokens": 55, "input_tokens": 1271, "image_tokens": 1247, "total_tokens": 1326}},
     {"input_tokens": 1271, "output_tokens": 55, "input_image_tokens": 1247}),
    ("minimax's own path", "api.minimax.io/v1/text/chatcompletion_v2", MESSAGES,
     {**CHAT, "usage": COUNTED, "base_resp": {"status_code": 0}}, {"input_tokens": 3, "is_error": False}),
    ("replicate by model", "api.replicate.com/v1/models/meta/llama-3/predictions", {"input": {"prompt": "a"}},
     {"id": "p", "model": "meta/llama-3", "output": ["a"], "error": None, "status": "succeeded",
      "metrics": {"input_token_count": 3, "output_token_count": 5, "predict_time": 0.5}},
     {"input_tokens": 3, "output_tokens": 5, "predict_seconds": "0.5", "request_model": "meta/llama-3"}),
    ("ollama fails in the middle", OLLAMA, MESSAGES,
     lines({"model": "m", "message": {"content": "a"}, "done": False}, {"error": "out of memory"}),
     {"is_error": True, "input_tokens": None, "complete": False}),
    ("ollama with a cached prompt", OLLAMA, MESSAGES,
     lines({"model": "m", "message": {"content": "a"}, "done": True, "done_reason": "stop", "prompt_eval_count": 30,
            "prompt_eval_cached_count": 20, "eval_count": 2}),
     {"input_tokens": 30, "cache_read_input_tokens": 20, "output_tokens": 2, "complete": True}),
    ("tgi, streamed", "tgi.example/generate_stream", {"inputs": "a", "parameters": {}},
     sse({"index": 1, "token": {"id": 1, "text": "b"}, "generated_text": None, "details": None},
         {"index": 2, "token": {"id": 2, "text": "</s>", "special": True}, "generated_text": "b",
          "details": {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 3}}),
     {"input_tokens": 3, "output_tokens": 2, "finish_reasons": ("eos_token",), "complete": True}),
    ("groq says it twice", "api.groq.com/openai/v1/chat/completions", {**MESSAGES, "stream": True},
     sse({**CHAT, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage":
          {**COUNTED, "queue_time": 0.1, "prompt_tokens_details": {"cached_tokens": 1}}}},
         {**CHAT, "choices": [], "usage": {**COUNTED, "prompt_tokens_details": {"cached_tokens": 1}}}, "[DONE]"),
     {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1, "complete": True}),
    ("cohere, only what is billed", "api.cohere.com/v2/chat", MESSAGES,
     {"id": "i", "finish_reason": "COMPLETE", "message": {}, "usage": {"billed_units": {"input_tokens": 10.0,
                                                                                     "output_tokens": 5.0}}},
     {"input_tokens": 10, "output_tokens": 5}),
    ("cohere bills less than the model saw", "api.cohere.com/v2/chat", MESSAGES,
     {"id": "i", "finish_reason": "COMPLETE", "message": {}, "usage": {
         "billed_units": {"input_tokens": 68.0, "output_tokens": 8.0}, "cached_tokens": 992,
         "tokens": {"input_tokens": 1591.0, "output_tokens": 38.0, "reasoning_tokens": 5}}},
     {"input_tokens": 68, "output_tokens": 8, "cache_read_input_tokens": 992, "reasoning_output_tokens": 5}),
    ("cohere's limit", "api.cohere.com/v1/chat", {"message": "hi", "model": "command-r", "stream": True},
     lines({"event_type": "stream-start", "generation_id": "g"},
           {"is_finished": True, "event_type": "stream-end", "finish_reason": "ERROR_LIMIT",
            "response": {"response_id": "r", "meta": {"billed_units": {"input_tokens": 3, "output_tokens": 2}}}}),
     {"is_error": True, "finish_reasons": ("ERROR_LIMIT",), "input_tokens": 3, "output_tokens": 2}),
    ("cohere's pictures", "api.cohere.com/v2/embed", {"model": "embed-v4.0", "images": [], "input_type": "image"},
     {"id": "e", "embeddings": {}, "meta": {"billed_units": {"images": 1, "image_tokens": 258, "input_tokens": 0}}},
     {"input_tokens": 258, "input_image_tokens": 258, "response_id": "e"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "sent", "said", "expected"), [one[1:] for one in CASES], ids=[one[0] for one in CASES]
)
def test_each_is_read_as_its_provider_means_it(address: str, sent: Any, said: Any, expected: dict[str, Any]) -> None:
    assert facts(read(address, sent, said), *expected) == expected


def test_an_apps_own_completion_endpoint_is_not_taken_for_llama_cpps() -> None:
    assert recognise(request("app.example/api/completion", {"prompt": "hi"}), {}) is None
