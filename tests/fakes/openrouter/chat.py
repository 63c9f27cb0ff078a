"""Chat completions, plain and streamed, as OpenAI writes them and with what OpenRouter adds."""

from typing import Any

import msgspec

from tests.fakes.openrouter.served import Served, encode


def completion(served: Served) -> dict[str, Any]:
    """The body of a plain reply."""
    message: dict[str, Any] = {"role": "assistant", "content": served.script.reply}
    if served.script.tool_calls:
        message["tool_calls"] = _tool_calls(served)
    choice = {"index": 0, "message": message, "logprobs": None, **_finish(served)}
    return {**_head(served, "chat.completion"), "choices": [choice], "usage": usage(served)}


def usage(served: Served) -> dict[str, Any]:
    """The usage object: totals that include their parts, and the cost where OpenRouter answers."""
    tokens = served.tokens
    prompt_details: dict[str, int] = {"cached_tokens": tokens.cached, "audio_tokens": 0}
    if tokens.cache_write:
        prompt_details["cache_write_tokens"] = tokens.cache_write
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        **served.cost_fields,
    }


def events(served: Served, *, with_usage: bool) -> list[bytes]:
    """The events of a stream: comments, deltas, the finish, the usage with empty choices, [DONE]."""
    out = [b": OPENROUTER PROCESSING\n\n"] if served.money is not None else []
    out.append(_chunk(served, {"role": "assistant", "content": ""}))
    out += [_chunk(served, {"content": piece}) for piece in served.script.pieces()]
    for index, call in enumerate(_tool_calls(served)):
        arguments = call["function"]["arguments"]
        start = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        out.append(_chunk(served, {"tool_calls": [start]}))
        for part in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            out.append(_chunk(served, {"tool_calls": [{"index": index, "function": {"arguments": part}}]}))
    out.append(_chunk(served, {}, **_finish(served)))
    if with_usage:
        last = {**_head(served, "chat.completion.chunk"), "choices": [], "usage": usage(served)}
        out.append(b"data: " + encode(last) + b"\n\n")
    out.append(b"data: [DONE]\n\n")
    return out


def stream_error(served: Served, status: int, message: str) -> bytes:
    """The chunk that ends a stream whose status was 200 already."""
    error = {"code": status, "message": message, "metadata": {"error_type": "provider_unavailable"}}
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return b"data: " + encode({**_head(served, "chat.completion.chunk"), "error": error, "choices": [choice]}) + b"\n\n"


def _head(served: Served, kind: str) -> dict[str, Any]:
    head = {"id": served.id, "object": kind, "created": served.created, "model": served.model}
    if served.provider is not None:
        head["provider"] = served.provider
    return head


def _chunk(served: Served, delta: dict[str, Any], **finish: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **finish}
    return b"data: " + encode({**_head(served, "chat.completion.chunk"), "choices": [choice]}) + b"\n\n"


def _finish(served: Served) -> dict[str, str]:
    reason = served.script.finish_reason or ("tool_calls" if served.script.tool_calls else "stop")
    return {"finish_reason": reason, **({"native_finish_reason": reason} if served.money is not None else {})}


def _tool_calls(served: Served) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{served.id[-12:]}_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
        }
        for number, call in enumerate(served.script.tool_calls)
    ]
