"""Replies in two wire formats with distinctive figures, whole and as streams."""

import json
from typing import Any

CHAT = {
    "id": "chatcmpl-plain1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Paris."}}],
    "usage": {
        "prompt_tokens": 1231,
        "completion_tokens": 47,
        "total_tokens": 1278,
        "prompt_tokens_details": {"cached_tokens": 1024},
        "completion_tokens_details": {"reasoning_tokens": 13},
    },
}
CHAT_BODY = json.dumps(CHAT).encode()
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Capital of France?"}]}
PATH = "/v1/chat/completions"


def chat_events(words: int = 5, *, usage: bool = True, done: bool = True) -> list[bytes]:
    """The events of a chat stream, each whole."""
    base = {"id": "chatcmpl-stream1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
    out = [
        {**base, "choices": [{"index": 0, "delta": {"content": f"w{n} "}, "finish_reason": None}]} for n in range(words)
    ]
    out.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        out.append({**base, "choices": [], "usage": CHAT["usage"]})
    events = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in out]
    return [*events, b"data: [DONE]\n\n"] if done else events


SSE = {"content-type": "text/event-stream"}

MESSAGE = {
    "id": "msg_plain1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Paris."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 311,
        "cache_read_input_tokens": 2048,
        "cache_creation_input_tokens": 512,
        "cache_creation": {"ephemeral_5m_input_tokens": 512, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 83,
    },
}


def message_events() -> list[bytes]:
    """The events of an Anthropic stream."""
    start = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**MESSAGE["usage"], "output_tokens": 1}}  # type: ignore[dict-item]
    out: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Paris."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 83},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in out]
