"""Recorded replies written in another way that means the same: the reply read from them is the same."""

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from spendwatch.wire import Reply
from tests.wire import corpus

_READ = msgspec.json.Decoder(float_hook=Decimal)
_WRITE = msgspec.json.Encoder(decimal_format="number")

# An object that has the first member may as well state that it has none of the others.
NONE_OF: dict[str, tuple[str, ...]] = {
    "choices": ("usage", "error", "service_tier", "provider", "cost", "x_groq", "system_fingerprint"),
    "finish_reason": ("logprobs", "content_filter_results", "usage", "error"),
    "content": ("tool_calls", "function_call", "refusal", "audio"),
    "prompt_tokens": ("prompt_tokens_details", "completion_tokens_details", "cost_details", "cached_tokens"),
    "input_tokens": ("input_tokens_details", "output_tokens_details", "cache_creation_input_tokens"),
    "output": ("error", "incomplete_details", "service_tier", "usage"),
}
UNHEARD_OF: tuple[Any, ...] = (
    None, 1, "usage", {"usage": {"prompt_tokens": 7}}, [{"error": {"type": "x"}}], True, {"model": "no", "id": "no"},
)  # fmt: skip

WAYS = ("other order", "unheard of", "nulls", "escaped", "indented", "other lines", "all at once")


def other(value: Any, way: str, randomness: random.Random) -> Any:
    """A JSON value changed in its way."""
    if isinstance(value, list):
        return [other(one, way, randomness) for one in value]
    if not isinstance(value, dict):
        return value
    members = [(name, other(one, way, randomness)) for name, one in value.items()]
    if way in ("nulls", "all at once"):
        for name in [name for name in NONE_OF if name in value]:
            members += [(absent, None) for absent in NONE_OF[name] if absent not in dict(members)]
    if way in ("unheard of", "all at once") and randomness.random() < 0.5:
        at = randomness.randrange(len(members) + 1)
        members.insert(at, (f"x_{randomness.randrange(99)}", randomness.choice(UNHEARD_OF)))
    if way in ("other order", "all at once"):
        randomness.shuffle(members)
    return dict(members)


def rewritten(data: bytes, way: str, randomness: random.Random) -> bytes:
    """A JSON document written otherwise; what is none, as it is."""
    try:
        value = _READ.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return data
    out = _WRITE.encode(other(value, way, randomness))
    if way == "indented":
        return msgspec.json.format(out, indent=2)
    if way in ("escaped", "all at once"):
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in out.decode()).encode()
    return out


def resent(stream: bytes, way: str, randomness: random.Random) -> bytes:
    """Server-sent events written otherwise."""
    events = []
    for event in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields: list[bytes] = []
        for line in event.split(b"\n"):
            if not line.startswith(b"data:"):
                fields.append(line)
                continue
            data = rewritten(line[5:].lstrip(b" "), way, randomness)
            space = b"" if way == "other lines" and randomness.random() < 0.3 else b" "
            fields += [b"data:" + space + part for part in data.split(b"\n")]
        if way in ("other lines", "all at once") and any(field.startswith(b"data:") for field in fields):
            fields.sort(key=lambda field: field.startswith(b"event:"))
            fields = [b": ping", *fields, b"id: 7"]
        events.append(b"\n".join(fields))
    newline = randomness.choice((b"\r\n", b"\r")) if way in ("other lines", "all at once") else b"\n"
    return b"\n\n".join(events).replace(b"\n", newline)


def variants(way: str) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """Each case that can be written this way, as it is and otherwise."""
    for case in corpus.cases():
        data = corpus.body(case)
        start = data.lstrip()[:5]
        randomness = random.Random(f"{case['id']} {way}")
        if case.get("derived") or case["stream_encoding"] == "aws-eventstream":
            continue
        if start.startswith((b"data", b"event", b":", b"id:")):
            yield case, data, resent(data, way, randomness)
        elif start[:1] in (b"{", b"[") and way != "other lines":
            by_line = case["stream_encoding"] == "ndjson" or case["wire_format"].startswith("ollama.")
            if not by_line:
                yield case, data, rewritten(data, way, randomness)
            elif way != "indented":
                yield case, data, b"\n".join(rewritten(line, way, randomness) for line in data.split(b"\n"))


def figures(reply: Reply | None) -> Reply | None:
    """All that a reply says, but for what is made of members that were changed: prints, objects kept as text."""
    if reply is None:
        return None
    kept = {name: value for name, value in reply.attributes.items() if not value.startswith("[{")}
    return replace(reply, fingerprint=None, attributes=kept)


@pytest.mark.parametrize("way", WAYS)
def test_a_reply_written_otherwise_reads_the_same(way: str) -> None:
    count = 0
    for case, plain, written in variants(way):
        expected = figures(corpus.replay(case, [plain]))
        assert figures(corpus.replay(case, [written])) == expected, case["id"]
        pieces = [written[at : at + 700] for at in range(0, len(written), 700)]
        assert figures(corpus.replay(case, pieces)) == expected, case["id"]
        count += written != plain
    assert count >= 150
