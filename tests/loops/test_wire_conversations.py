"""The loop detector on conversations as they go over the wire, read by the real readers."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spendwatch.calls import LLMCall, Tags
from spendwatch.fingerprint import Fingerprinter
from spendwatch.loops import Detector, Rule
from spendwatch.wire import Request, recognise

Json = dict[str, Any]
START = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)
KEY = Fingerprinter(b"k" * 32)


class OpenAI:
    """An agent on chat completions."""

    host, path, name = "api.openai.com", "/v1/chat/completions", "openai"

    def __init__(self) -> None:
        self.messages: list[Json] = [
            {"role": "system", "content": "You search the web."},
            {"role": "user", "content": "Find the price of tea in China."},
        ]
        self.turn = 0

    def request(self) -> Json:
        return {"model": "gpt-5-mini", "messages": self.messages}

    def reply(self, tool: Json | None, text: str) -> Json:
        self.turn += 1
        message: Json = {"role": "assistant", "content": text}
        if tool is not None:
            function = {"name": "search", "arguments": json.dumps(tool)}
            message["tool_calls"] = [{"id": f"call_{self.turn}", "type": "function", "function": function}]
        self.messages.append(message)
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
        head = {"id": f"c{self.turn}", "object": "chat.completion", "model": "gpt-5-mini"}
        return {**head, "choices": [choice], "usage": usage}

    def result(self, text: str) -> None:
        self.messages.append({"role": "tool", "tool_call_id": f"call_{self.turn}", "content": text})

    def user(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})


class Anthropic(OpenAI):
    """An agent on messages."""

    host, path, name = "api.anthropic.com", "/v1/messages", "anthropic"

    def __init__(self) -> None:
        super().__init__()
        del self.messages[0]

    def request(self) -> Json:
        body = {"model": "claude-sonnet-5", "max_tokens": 100, "system": "You search the web."}
        return {**body, "messages": self.messages}

    def reply(self, tool: Json | None, text: str) -> Json:
        self.turn += 1
        content: list[Json] = [{"type": "text", "text": text}]
        if tool is not None:
            content.append({"type": "tool_use", "id": f"toolu_{self.turn}", "name": "search", "input": tool})
        self.messages.append({"role": "assistant", "content": content})
        return {
            "id": f"m{self.turn}", "type": "message", "role": "assistant", "model": "claude-sonnet-5",
            "content": content, "stop_reason": "tool_use" if tool else "end_turn",
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }  # fmt: skip

    def result(self, text: str) -> None:
        block = {"type": "tool_result", "tool_use_id": f"toolu_{self.turn}", "content": text}
        self.messages.append({"role": "user", "content": [block]})


def call(agent: OpenAI, tool: Json | None, text: str = "Let me look.") -> LLMCall:
    """The next call of the agent, as the recorder would make it."""
    body = json.dumps(agent.request()).encode()
    headers = {"content-type": "application/json"}
    request = Request(method="POST", host=agent.host, port=None, path=agent.path, headers=headers, body=body)
    wire_format = recognise(request, {})
    assert wire_format is not None
    reader = wire_format.reader(request, KEY)
    reader.head(200, headers)
    reader.feed(json.dumps(agent.reply(tool, text)).encode())
    reply = reader.finish(True)
    assert reply.fingerprint is not None
    return LLMCall(
        trace_id=f"{agent.turn:032x}",
        span_id=f"{agent.turn:016x}",
        started_at=START + timedelta(seconds=10 * agent.turn),
        duration_us=1,
        provider_name=agent.name,
        tags=Tags(agent="crawler", session="s1"),
        fingerprint=reply.fingerprint,
    )


def told(agent: OpenAI, turns: int, tool: Callable[[int], Json | None], answer: Callable[[int], str]) -> list[Any]:
    """Verdicts of a run: (turn, rule, tool)."""
    detector, found = Detector(), []
    for turn in range(turns):
        asked = tool(turn)
        verdict = detector.observe(call(agent, asked, f"Attempt {turn}."))
        if verdict is not None:
            found.append((turn, verdict.rule, verdict.tool))
        (agent.user if asked is None else agent.result)(answer(turn))
    return found


@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_one_search_again_and_again_is_a_loop(kind: type[OpenAI]) -> None:
    found = told(kind(), 10, lambda _: {"query": "tea price"}, lambda _: "No results found.")
    assert found == [(4, Rule.REPEATED_ACTION, "search")]


@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_results_that_differ_by_a_request_id_only_are_the_same_a_little_later(kind: type[OpenAI]) -> None:
    found = told(kind(), 10, lambda _: {"query": "tea price"}, lambda n: f"No results found (request 7f{n}a{n}).")
    assert found == [(6, Rule.REPEATED_ACTION, "search")]


@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_an_agent_that_searches_its_way_forward_is_no_loop(kind: type[OpenAI]) -> None:
    assert told(kind(), 20, lambda n: {"query": f"tea {n}"}, lambda _: "No results found.") == []
    pages = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    assert told(kind(), 10, lambda _: {"action": "next page"}, lambda n: f"The page of {pages[n]} tea houses.") == []


@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_the_canned_message_is_a_loop(kind: type[OpenAI]) -> None:
    found = told(kind(), 10, lambda _: None, lambda _: "Please proceed to the next step.")
    assert found == [(5, Rule.CANNED_MESSAGE, "")]


@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_the_same_question_asked_afresh_is_no_loop(kind: type[OpenAI]) -> None:
    detector = Detector()
    for n in range(20):
        agent = kind()
        agent.turn = n
        assert detector.observe(call(agent, {"query": "tea price"})) is None
