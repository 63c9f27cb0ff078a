"""Anthropic's messages, plain and streamed: input_tokens leaves cache reads and writes out."""

from typing import Any

import msgspec

from tests.fakes.openrouter.served import Served, encode


def message(served: Served) -> dict[str, Any]:
    """The body of a plain reply."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": served.script.reply}] if served.script.reply else []
    blocks += [
        {"type": "tool_use", "id": _tool_id(served, number), "name": call.name, "input": call.arguments}
        for number, call in enumerate(served.script.tool_calls)
    ]
    return {
        **_head(served),
        "content": blocks,
        "stop_reason": _stop_reason(served),
        "usage": {
            **_input(served),
            **_output(served),
            **served.cost_fields,
        },
    }


def events(served: Served) -> list[bytes]:
    """The events of a stream, from message_start to message_stop."""
    start = {**_head(served), "content": [], "stop_reason": None, "usage": {**_input(served), "output_tokens": 1}}
    out = [_event("message_start", message=start), _event("ping")]
    index = 0
    if served.script.reply:
        out.append(_event("content_block_start", index=index, content_block={"type": "text", "text": ""}))
        for piece in served.script.pieces():
            out.append(_event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece}))
        out.append(_event("content_block_stop", index=index))
        index += 1
    for number, call in enumerate(served.script.tool_calls):
        block = {"type": "tool_use", "id": _tool_id(served, number), "name": call.name, "input": {}}
        out.append(_event("content_block_start", index=index, content_block=block))
        arguments = msgspec.json.encode(call.arguments).decode()
        for part in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            delta = {"type": "input_json_delta", "partial_json": part}
            out.append(_event("content_block_delta", index=index, delta=delta))
        out.append(_event("content_block_stop", index=index))
        index += 1
    usage = _output(served)
    if served.money is not None:
        usage = {**_input(served), **usage, **served.cost_fields}
    out.append(_event("message_delta", delta={"stop_reason": _stop_reason(served), "stop_sequence": None}, usage=usage))
    out.append(_event("message_stop"))
    return out


def stream_error(_served: Served, _status: int, text: str) -> bytes:
    """The event that ends a stream whose status was 200 already."""
    return _event("error", error={"type": "overloaded_error", "message": text})


def _head(served: Served) -> dict[str, Any]:
    head: dict[str, Any] = {
        "id": served.id,
        "type": "message",
        "role": "assistant",
        "model": served.model,
        "stop_sequence": None,
    }
    if served.provider is not None:
        head["provider"] = served.provider
    return head


def _input(served: Served) -> dict[str, Any]:
    tokens = served.tokens
    return {
        "input_tokens": tokens.prompt - tokens.cached - tokens.cache_write,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write - tokens.cache_write_1h,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "service_tier": "standard",
    }


def _output(served: Served) -> dict[str, Any]:
    tokens = served.tokens
    thinking = {"output_tokens_details": {"thinking_tokens": tokens.reasoning}} if tokens.reasoning else {}
    return {"output_tokens": tokens.completion, **thinking}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + encode({"type": kind, **fields}) + b"\n\n"


def _stop_reason(served: Served) -> str:
    return served.script.finish_reason or ("tool_use" if served.script.tool_calls else "end_turn")


def _tool_id(served: Served, number: int) -> str:
    return f"toolu_{served.id[-12:]}_{number}"
