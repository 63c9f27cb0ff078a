"""Fingerprints: equal for equal content in any format, different for one changed character, and nothing else of it."""

import json
import random
import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendwatch.calls import Fingerprint
from spendwatch.fingerprint import HEAD, Fingerprinter
from spendwatch.likeness import looks_like_error, mask
from spendwatch.wire import Request, recognise

KEYED = Fingerprinter(b"k" * 32)
JSON = {"content-type": "application/json"}


def prints(
    path: str,
    host: str,
    sent: dict[str, Any],
    said: dict[str, Any] | bytes,
    keyed: Fingerprinter = KEYED,
    **options: Any,
) -> Fingerprint:
    request = Request("POST", host, None, path, JSON, json.dumps(sent).encode())
    wire = recognise(request, {})
    assert wire is not None
    reader = wire.reader(request, keyed, **options)
    reader.head(200, JSON if isinstance(said, dict) else {"content-type": "text/event-stream"})
    reader.feed(json.dumps(said).encode() if isinstance(said, dict) else said)
    found = reader.finish(True).fingerprint
    assert found is not None
    return found


def openai(messages: list[dict[str, Any]], message: dict[str, Any] | None = None, **more: Any) -> Fingerprint:
    said = {"id": "c", "choices": [{"index": 0, "message": message or {"content": "ok"}, "finish_reason": "stop"}]}
    sent = {"model": "m", "messages": messages, **more.pop("sent", {})}
    return prints("/v1/chat/completions", "api.openai.com", sent, said, **more)


def anthropic(messages: list[dict[str, Any]], content: list[dict[str, Any]] | None = None, **more: Any) -> Fingerprint:
    said = {"id": "c", "type": "message", "content": content or [{"type": "text", "text": "ok"}]}
    sent = {"model": "m", "max_tokens": 9, "messages": messages, **more.pop("sent", {})}
    return prints("/v1/messages", "api.anthropic.com", sent, said, **more)


def responses(items: list[dict[str, Any]] | str, output: list[dict[str, Any]], **more: Any) -> Fingerprint:
    sent = {"model": "m", "input": items, **more.pop("sent", {})}
    return prints("/v1/responses", "api.openai.com", sent, {"id": "r", "status": "completed", "output": output}, **more)


def distance(a: str | None, b: str | None) -> int:
    assert a is not None
    assert b is not None
    return (int(a, 16) ^ int(b, 16)).bit_count()


PROSE = "The crawler read the page about prices, found no table in it, and asked for the next one of the list instead. "

OPENAI_TURNS = [
    {"role": "system", "content": "You search the web."},
    {"role": "user", "content": "Find the prices."},
    {
        "role": "assistant",
        "content": "I will look.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q":"a","n":1}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "No results."},
]
ANTHROPIC_TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "Find the prices."}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "I will look."},
            {"type": "tool_use", "id": "toolu_9", "name": "search", "input": {"n": 1, "q": "a"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9", "content": "No results."}]},
]
RESPONSES_ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "Find the prices."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I will look."}]},
    {"type": "function_call", "call_id": "c", "name": "search", "arguments": '{"n": 1, "q": "a"}'},
    {"type": "function_call_output", "call_id": "c", "output": "No results."},
]
OPENAI_CALL = {
    "content": "Again.",
    "tool_calls": [{"id": "x", "type": "function", "function": {"name": "search", "arguments": '{"q": "b", "n": 2}'}}],
}
ANTHROPIC_CALL = [
    {"type": "text", "text": "Again."},
    {"type": "tool_use", "id": "y", "name": "search", "input": {"n": 2, "q": "b"}},
]
RESPONSES_CALL = [
    {"type": "message", "content": [{"type": "output_text", "text": "Again."}]},
    {"type": "function_call", "call_id": "z", "name": "search", "arguments": '{"q":"b","n":2}'},
]


def test_the_same_conversation_has_the_same_prints_in_every_format() -> None:
    one = openai(OPENAI_TURNS, OPENAI_CALL)
    two = anthropic(ANTHROPIC_TURNS, ANTHROPIC_CALL, sent={"system": "You search the web."})
    three = responses(RESPONSES_ITEMS, RESPONSES_CALL, sent={"instructions": "You search the web."})
    for name in (
        "system", "last", "last_role", "last_simhash", "last_length", "last_is_error", "last_normalised", "tools",
        "response", "response_simhash", "response_length",
    ):  # fmt: skip
        assert getattr(one, name) == getattr(two, name) == getattr(three, name), name
    assert one.last_role == "tool"
    assert [tool.name for tool in one.tools] == ["search"]


def test_gemini_has_the_same_prints_for_the_same_words() -> None:
    sent = {
        "systemInstruction": {"parts": [{"text": "You search the web."}]},
        "contents": [{"role": "user", "parts": [{"text": "Find the prices."}]}],
    }
    parts = [{"text": "Again."}, {"functionCall": {"name": "search", "args": {"q": "b", "n": 2}}}]
    said = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    found = prints(path, "generativelanguage.googleapis.com", sent, said)
    same = openai(OPENAI_TURNS[:2], OPENAI_CALL)
    for name in (
        "system",
        "last",
        "last_role",
        "last_simhash",
        "last_normalised",
        "tools",
        "response",
        "response_length",
    ):
        assert getattr(found, name) == getattr(same, name), name


def test_a_system_prompt_before_the_first_message_is_not_part_of_the_last_ones() -> None:
    alone = openai([{"role": "user", "content": "Find the prices."}])
    assert openai(OPENAI_TURNS[:2]).last == alone.last
    assert openai(OPENAI_TURNS[:2]).prefix != alone.prefix
    assert openai(OPENAI_TURNS[:1]).last != openai([{"role": "system", "content": "You search the net."}]).last


def test_a_streamed_reply_has_the_prints_of_the_whole_one() -> None:
    whole = openai(OPENAI_TURNS, OPENAI_CALL)
    deltas = [
        {"content": "Aga"},
        {"content": "in."},
        {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "search", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"q": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"b", "n": 2}'}}]},
    ]
    stream = b"".join(
        b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
        for delta in deltas
    )
    streamed = prints(
        "/v1/chat/completions", "api.openai.com", {"model": "m", "messages": OPENAI_TURNS, "stream": True}, stream
    )
    assert streamed.response == whole.response
    assert streamed.tools == whole.tools
    assert streamed.response_length == whole.response_length


def test_parallel_tool_results_are_one_message_however_they_are_sent() -> None:
    together = [
        *ANTHROPIC_TURNS[:2],
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "two"}]},
            ],
        },
    ]
    apart = [
        *OPENAI_TURNS[:3],
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
    ]
    assert openai(apart).last == anthropic(together).last


@given(st.text(min_size=1, max_size=300), st.data())
@settings(max_examples=60, deadline=None)
def test_one_changed_character_changes_every_exact_print(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(exclude_categories=("Cs",)).filter(lambda character: character != text[at]))
    changed = text[:at] + other + text[at + 1 :]
    one = openai(_turns(text), {"content": text})
    two = openai(_turns(changed), {"content": changed})
    for name in ("system", "prefix", "last", "response"):
        assert getattr(one, name) != getattr(two, name), name
    again = openai(_turns(text), {"content": text})
    assert again == one


def _turns(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": text}, {"role": "user", "content": text}]


@pytest.mark.parametrize("length", [HEAD - 1, HEAD, HEAD + 1, 60_000, 300_000])
def test_one_changed_character_is_seen_anywhere_in_a_long_text(length: int) -> None:
    text = (PROSE * (length // len(PROSE) + 1))[:length]
    exact = KEYED.exact(text)
    for at in (0, HEAD // 2, length // 2, length - 1):
        assert KEYED.exact(text[:at] + "~" + text[at + 1 :]) != exact


def test_near_duplicates_are_near_and_other_texts_are_far() -> None:
    words = random.Random(5)
    lexicon = ["".join(words.choices(string.ascii_lowercase, k=words.randint(2, 9))) for _ in range(800)]
    near, far = [], []
    for _ in range(60):
        text = words.choices(lexicon, k=200)
        edited = list(text)
        edited[words.randrange(200)] = "changed"
        near.append(distance(KEYED.simhash(" ".join(text)), KEYED.simhash(" ".join(edited))))
        far.append(distance(KEYED.simhash(" ".join(text)), KEYED.simhash(" ".join(words.choices(lexicon, k=200)))))
    assert sorted(near)[50] <= 10
    assert min(far) > 15
    assert 28 <= sum(far) / len(far) <= 36


def test_a_text_without_spaces_has_near_duplicates_too() -> None:
    words = random.Random(7)
    text = "".join(chr(words.randrange(0x4E00, 0x9FA5)) for _ in range(300))
    assert distance(KEYED.simhash(text), KEYED.simhash(text[:150] + "新" + text[151:])) <= 12
    assert distance(KEYED.simhash(text), KEYED.simhash(text[::-1])) > 15


def test_a_simhash_of_few_words_is_that_of_no_other() -> None:
    assert KEYED.simhash("") == KEYED.simhash(" \n") == "0" * 16
    assert len({KEYED.simhash(text) for text in ("one", "two", "one two", "two one", "one two three")}) == 5


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Done in 1.24s, 3 files", "Done in 18s, 14 files"),
        ("2026-11-03 12:00:01 retrying", "2026-11-04T09:30:59Z retrying"),
        ("request req_01ABC9 failed", "request req_77ZXY1 failed"),
        ("id 3fa85f64-5717-4562-b3fc-2c963f66afa6", "id 9ab1c2d3-1111-4aaa-8bbb-eeeeeeee0001"),
        ("wrote /tmp/tmpabcdefgh/out.txt", "wrote /tmp/x/out.txt"),
        ("opened tmpk3xq_wab", "opened tmpzzzzzzzz"),
        ("No  Results", "no results"),
    ],
)
def test_what_changes_without_meaning_anything_is_masked(one: str, two: str) -> None:
    assert KEYED.exact(one) != KEYED.exact(two)
    assert KEYED.normalised(one) == KEYED.normalised(two)


def test_words_are_not_masked() -> None:
    assert mask(b"The file was not found") == b"the file was not found"
    assert KEYED.normalised("found nothing") != KEYED.normalised("found something")


@pytest.mark.parametrize(
    "text", ["Traceback (most recent call last):", "KeyError: 'x'", "bash: foo: command not found"]
)
def test_a_failure_reads_like_one(text: str) -> None:
    assert looks_like_error(text)


def test_a_plain_answer_does_not_read_like_a_failure() -> None:
    assert not looks_like_error("The table has 14 rows; all of them are filled.")


def test_what_the_format_says_of_an_error_wins_over_how_the_text_reads() -> None:
    turns = [
        *ANTHROPIC_TURNS[:2],
        {"role": "user", "content": [{"type": "tool_result", "content": "fine", "is_error": True}]},
    ]
    assert anthropic(turns).last_is_error is True


def test_another_key_gives_other_prints_and_an_empty_one_is_refused() -> None:
    other = Fingerprinter(b"another")
    assert other.exact(PROSE) != KEYED.exact(PROSE)
    assert other.simhash(PROSE) != KEYED.simhash(PROSE)
    with pytest.raises(ValueError, match="must not be empty"):
        Fingerprinter(b"")


def test_nothing_but_hex_counts_and_a_role_comes_out() -> None:
    found = openai(OPENAI_TURNS, OPENAI_CALL, tool_names=False)
    assert [tool.name for tool in found.tools] == [""]
    for name in Fingerprint.__dataclass_fields__:
        value = getattr(found, name)
        if name == "last_role":
            assert value == "tool"
        elif name == "tools":
            assert all(re.fullmatch("[0-9a-f]{16}", one) for t in value for one in (t.arguments, t.arguments_simhash))
        elif isinstance(value, str):
            assert re.fullmatch("[0-9a-f]{16}", value), name
        else:
            assert isinstance(value, int), name


def _history(messages: int, **last: Any) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": "system", "content": "You search the web."}]
    for at in range(messages):
        turns.append({"role": "user" if at % 2 else "assistant", "content": f"{at} {PROSE * 10}"})
    return [*turns, {"role": "user", "content": "What now?", **last}]


@pytest.mark.parametrize("model_first", [True, False])
def test_a_large_history_has_the_prints_that_a_small_one_with_the_same_ends_has(model_first: bool) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"required": ["role"]}}}] * 3
    turns = _history(400)
    order = (
        {"model": "m", "stream": True, "messages": turns, "tools": tools}
        if model_first
        else {"messages": turns, "tools": tools, "stream": True, "model": "m"}
    )
    request = Request("POST", "api.openai.com", None, "/v1/chat/completions", JSON, json.dumps(order).encode())
    wire = recognise(request, {})
    assert wire is not None
    reader = wire.reader(request, KEYED)
    reader.head(200, JSON)
    reader.feed(b"{}")
    reply = reader.finish(True)
    assert (reply.request_model, reply.streamed) == ("m", True)
    large = reply.fingerprint
    small = openai([turns[0], *turns[-2:]]).__class__
    assert large is not None
    assert isinstance(large, small)
    reference = openai([turns[0], *turns[-2:]])
    for name in ("system", "last", "last_role", "last_simhash", "last_length", "last_normalised", "last_is_error"):
        assert getattr(large, name) == getattr(reference, name), name


def test_the_prefix_of_a_large_history_changes_with_it() -> None:
    turns = _history(400)
    one = openai(turns)
    assert openai(turns).prefix == one.prefix
    assert openai([*turns[:-1], {"role": "user", "content": "What else?"}]).prefix == one.prefix
    assert openai([*turns[:100], {"role": "user", "content": "more"}, *turns[100:]]).prefix != one.prefix
    changed = [{"role": "system", "content": "You search the net."}, *turns[1:]]
    assert openai(changed).prefix != one.prefix


def test_a_single_message_of_a_megabyte_is_printed_too() -> None:
    text = PROSE * 9000
    one = openai([{"role": "user", "content": text}])
    assert one.last_role == "user"
    assert one.last is not None
    assert one.last != openai([{"role": "user", "content": text + "!"}]).last
    assert one.last_length is not None
    assert abs(one.last_length - len(text)) < 100


@pytest.mark.parametrize(
    "trap",
    [
        '"}], "model": "wrong", "x": [{"role": "user", "content": "',
        '{"role": "system", "content": "no"}',
        '\\"}],\\"model\\":\\"wrong\\"}',
        "]}]}]}",
    ],
)
def test_a_message_that_looks_like_a_request_does_not_pass_for_one(trap: str) -> None:
    turns = [*_history(200), {"role": "assistant", "content": trap}, {"role": "user", "content": trap + PROSE}]
    request = Request(
        "POST", "api.openai.com", None, "/v1/chat/completions", JSON,
        json.dumps({"messages": turns, "model": "right"}).encode(),
    )  # fmt: skip
    wire = recognise(request, {})
    assert wire is not None
    assert wire.reader(request, KEYED).finish(False).request_model == "right"
    assert openai(turns).last == openai(turns[-2:]).last
