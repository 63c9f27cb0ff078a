"""Equal content has equal prints in the chat formats beyond OpenAI's, Anthropic's and Gemini's own as well."""

import json
from typing import Any

import pytest

from spendwatch.calls import Fingerprint
from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Request, recognise

KEYED = Fingerprinter(b"k" * 32)
JSON = {"content-type": "application/json"}
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com"
PROMPT_PARTS = ("last", "last_role", "last_simhash", "last_length", "last_is_error", "last_normalised")
REPLY_PARTS = ("response", "response_simhash", "response_length")


def prints(host: str, path: str, sent: dict[str, Any], said: Any) -> Fingerprint:
    request = Request("POST", host, None, path, JSON, json.dumps(sent).encode())
    wire = recognise(request, {})
    assert wire is not None
    reader = wire.reader(request, KEYED)
    reader.head(200, JSON)
    reader.feed(json.dumps(said).encode())
    found = reader.finish(True).fingerprint
    assert found is not None
    return found


def openai(turns: list[dict[str, Any]], **message: Any) -> Fingerprint:
    said = {"id": "c", "choices": [{"index": 0, "message": message or {"content": "Fine."}}]}
    return prints("api.openai.com", "/v1/chat/completions", {"model": "m", "messages": turns}, said)


SYSTEM = {"role": "system", "content": "You search."}
ASKED = {"role": "user", "content": "Find the prices."}
CALLED = {
    "role": "assistant",
    "content": "I will look.",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "a", "n": 1}'}}],
}
FOUND = {"role": "tool", "tool_call_id": "1", "content": "No results."}
AGAIN = {"tool_calls": [{"id": "2", "type": "function", "function": {"name": "search", "arguments": '{"q":"b"}'}}]}


@pytest.mark.parametrize("path", ["/model/m/converse", "/model/m/invoke"])
def test_converse_and_nova_have_the_prints_of_the_same_conversation_elsewhere(path: str) -> None:
    sent = {
        "system": [{"text": "You search."}, {"cachePoint": {"type": "default"}}],
        "messages": [
            {"role": "user", "content": [{"text": "Find the prices."}]},
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                    {"text": "I will look."},
                    {"toolUse": {"toolUseId": "x", "name": "search", "input": {"n": 1, "q": "a"}}},
                ],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "x", "content": [{"text": "No results."}]}}],
            },
        ],
    }
    content = [{"text": "Again."}, {"toolUse": {"toolUseId": "y", "name": "search", "input": {"q": "b"}}}]
    one = prints(BEDROCK, path, sent, {"output": {"message": {"content": content}}, "stopReason": "tool_use"})
    other = openai([SYSTEM, ASKED, CALLED, FOUND], content="Again.", **AGAIN)
    for name in (*PROMPT_PARTS, *REPLY_PARTS, "system", "tools"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.last_role == "tool"


def test_claude_behind_invoke_has_the_prints_of_claude_itself() -> None:
    sent = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "system": "You search.", "messages": [ASKED]}
    said = {"id": "m", "type": "message", "content": [{"type": "text", "text": "Fine."}], "usage": {}}
    one = prints(BEDROCK, "/model/m/invoke", sent, said)
    assert one == prints("api.anthropic.com", "/v1/messages", {**sent, "model": "m"}, said)
    other = openai([SYSTEM, ASKED])
    for name in (*PROMPT_PARTS, *REPLY_PARTS, "system"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize(
    ("host", "path", "sent", "said"),
    [
        ("api.cohere.com", "/v1/chat", {"message": "Find the prices.", "preamble": "You search.", "chat_history": []},
         {"text": "Fine."}),
        ("api.cohere.com", "/v2/chat", {"messages": [SYSTEM, ASKED]},
         {"message": {"content": [{"type": "text", "text": "Fine."}]}}),
        ("generativelanguage.googleapis.com", "/v1beta/interactions",
         {"system_instruction": "You search.", "input": "Find the prices."},
         {"steps": [{"type": "model_output", "content": [{"type": "text", "text": "Fine."}]}]}),
        ("generativelanguage.googleapis.com", "/v1beta/interactions",
         {"system_instruction": "You search.",
          "input": [{"type": "user_input", "content": [{"type": "text", "text": "Find the prices."}]}]},
         {"steps": [{"type": "model_output", "content": [{"type": "text", "text": "Fine."}]}]}),
        ("dashscope.aliyuncs.com", "/api/v1/services/aigc/text-generation/generation",
         {"input": {"messages": [SYSTEM, ASKED]}}, {"output": {"choices": [{"message": {"content": "Fine."}}]}}),
        ("127.0.0.1", "/api/v1/chat", {"model": "m", "system_prompt": "You search.", "input": "Find the prices."},
         {"output": [{"type": "message", "content": "Fine."}]}),
        (BEDROCK, "/model/m/invoke", {"preamble": "You search.", "message": "Find the prices."},
         {"response_id": "r", "text": "Fine."}),
    ],
)  # fmt: skip
def test_the_same_words_have_the_same_prints(host: str, path: str, sent: dict[str, Any], said: Any) -> None:
    one = prints(host, path, {"model": "m", **sent}, said)
    other = openai([SYSTEM, ASKED])
    for name in (*PROMPT_PARTS, *REPLY_PARTS, "system"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize(
    ("host", "path", "sent", "said"),
    [
        (BEDROCK, "/model/m/invoke", {"inputText": "Find the prices."}, {"results": [{"outputText": "Fine."}]}),
        (BEDROCK, "/model/m/invoke", {"prompt": "Find the prices."}, {"generation": "Fine."}),
        (BEDROCK, "/model/m/invoke", {"prompt": "Find the prices."}, {"outputs": [{"text": "Fine."}]}),
        ("api.cohere.com", "/v1/generate", {"prompt": "Find the prices."}, {"generations": [{"text": "Fine."}]}),
        ("us-south.ml.cloud.ibm.com", "/ml/v1/text/generation", {"input": "Find the prices."},
         {"results": [{"generated_text": "Fine."}]}),
        ("router.huggingface.co", "/models/m", {"inputs": "Find the prices."}, [{"generated_text": "Fine."}]),
        ("api.replicate.com", "/v1/predictions", {"input": {"prompt": "Find the prices."}}, {"output": ["Fi", "ne."]}),
        ("api.aleph-alpha.com", "/complete", {"prompt": [{"type": "text", "data": "Find the prices."}]},
         {"completions": [{"completion": "Fine."}]}),
    ],
)  # fmt: skip
def test_a_bare_text_has_the_prints_of_a_single_message(host: str, path: str, sent: dict[str, Any], said: Any) -> None:
    one = prints(host, path, sent, said)
    other = openai([ASKED])
    for name in (*PROMPT_PARTS, *REPLY_PARTS):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("given", [{"n": 1}, {"n": 1.5}, {"n": 1.0}, {"n": 12345678901234567890}, {"a": [0.1, None]}])
def test_a_calls_numbers_have_the_same_print_in_every_format(given: dict[str, Any]) -> None:
    text = json.dumps(given)
    asked: dict[str, Any] = {"model": "m", "messages": [ASKED]}
    use = {"type": "tool_use", "name": "s", "input": given}
    found = [
        openai([ASKED], tool_calls=[{"function": {"name": "s", "arguments": text}}]),
        openai([ASKED], tool_calls=[{"function": {"name": "s", "arguments": given}}]),
        prints("api.anthropic.com", "/v1/messages", asked, {"id": "m", "type": "message", "content": [use]}),
        prints(BEDROCK, "/model/m/converse", asked,
               {"output": {"message": {"content": [{"toolUse": {"name": "s", "input": given}}]}}}),
        prints("generativelanguage.googleapis.com", "/v1beta/models/m:generateContent", {"contents": []},
               {"candidates": [{"content": {"parts": [{"functionCall": {"name": "s", "args": given}}]}}]}),
        prints("api.cohere.com", "/v1/chat", {"message": "x"}, {"tool_calls": [{"name": "s", "parameters": given}]}),
    ]  # fmt: skip
    assert len({one.tools[0].arguments for one in found}) == 1
