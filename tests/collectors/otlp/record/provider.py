"""A provider on loopback with scripted replies, and an OTLP receiver that keeps what it is sent.

One server plays both, so that a recording needs nothing else. Every text of a prompt or reply holds CANARY: it must
never be found in what the collector reads. Every reply has an id of its own, so that a test can tell the calls apart.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CANARY = "canary-do-not-store"

CHAT_USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 50,
    "total_tokens": 1250,
    "prompt_tokens_details": {"cached_tokens": 1000, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
}
RESPONSES_USAGE = {
    "input_tokens": 1200,
    "input_tokens_details": {"cached_tokens": 1000},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 1250,
}
MESSAGES_USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1000,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 50,
    "service_tier": "standard",
}


class World:
    """What was asked and what was exported. `exports`: (path, content type, body) in the order of arrival."""

    def __init__(self) -> None:
        self.exports: list[tuple[str, str, bytes]] = []
        self._count = 0
        self._lock = threading.Lock()

    def next_id(self) -> int:
        """A number for each reply."""
        with self._lock:
            self._count += 1
            return self._count


def _chat(asked: dict[str, Any], number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": f"It is sunny. {CANARY}", "refusal": None}
    reason = "stop"
    # A model that was given tools uses one, once.
    if asked.get("tools") and not any(m["role"] == "tool" for m in asked["messages"]):
        name = asked["tools"][0]["function"]["name"]
        arguments = json.dumps({"city": f"Paris {CANARY}"})
        call = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        message |= {"content": None, "tool_calls": [call]}
        reason = "tool_calls"
    gateway = asked["model"].count("/") > 0
    usage: dict[str, Any] = dict(CHAT_USAGE)
    if gateway:
        usage |= {"cost": 0.00123, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.00123}}
    return {
        "id": f"gen-1795521600-{number:04d}" if gateway else f"chatcmpl-{number:04d}",
        "object": "chat.completion",
        "created": 1_795_521_600,
        "model": asked["model"] if gateway else f"{asked['model']}-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        **({"provider": "Azure"} if gateway else {}),
    }


def _chat_events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    head = {key: whole[key] for key in ("id", "created", "model", "service_tier")} | {"object": "chat.completion.chunk"}
    choice = whole["choices"][0]
    delta = {key: value for key, value in choice["message"].items() if key in ("role", "content", "tool_calls")}
    delta["tool_calls"] = [{"index": 0, **call} for call in delta.get("tool_calls", ())]
    if not delta["tool_calls"]:
        del delta["tool_calls"]
    return [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
        {**head, "choices": [], "usage": whole["usage"]},
    ]


def _responses(asked: dict[str, Any], number: int) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": f"msg_{number:04d}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": f"It is sunny. {CANARY}", "annotations": [], "logprobs": []}],
    }
    used = isinstance(asked["input"], list) and any(
        isinstance(entry, dict) and entry.get("type") == "function_call_output" for entry in asked["input"]
    )
    if asked.get("tools") and not used:
        arguments = json.dumps({"city": f"Paris {CANARY}"})
        item = {
            "id": f"fc_{number:04d}",
            "type": "function_call",
            "call_id": f"call_{number}",
            "name": asked["tools"][0]["name"],
            "arguments": arguments,
            "status": "completed",
        }
    return {
        "id": f"resp_{number:04d}",
        "object": "response",
        "created_at": 1_795_521_600,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": f"{asked['model']}-2024-07-18",
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": asked.get("tools") or [],
        "top_p": 1.0,
        "service_tier": "default",
        "usage": RESPONSES_USAGE,
    }


def _responses_events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    item = whole["output"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
    ]
    if item["type"] == "message":
        text = item["content"][0]["text"]
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        events[-1]["item"]["content"] = []
        events += [
            {"type": "response.content_part.added", **place, "part": {**item["content"][0], "text": ""}},
            {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []},
            {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        ]
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _message(asked: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "id": f"msg_{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": f"It is sunny. {CANARY}"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": MESSAGES_USAGE,
    }


def _message_events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    text = whole["content"][0]["text"]
    begun = {**whole["usage"], "output_tokens": 1}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    return [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": begun}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def _embedding(asked: dict[str, Any], _number: int) -> dict[str, Any]:
    return {
        "object": "list",
        "model": asked["model"],
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


_ROUTES = {
    "chat/completions": (_chat, _chat_events),
    "responses": (_responses, _responses_events),
    "messages": (_message, _message_events),
    "embeddings": (_embedding, None),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.split("?", 1)[0]
        if "/v1/traces" in path or path.endswith(("/v1/metrics", "/v1/logs")):
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self.world.exports.append((path, self.headers.get("content-type", ""), body))
            kind = self.headers.get("content-type", "application/x-protobuf")
            return self._answer(b"{}" if "json" in kind else b"", kind)
        found = next((made for end, made in _ROUTES.items() if path.endswith(f"/{end}")), None)
        if found is None:
            return self._answer(b"{}", "application/json", 404)
        asked = json.loads(body)
        if asked["model"].startswith("busy"):
            error = {"error": {"message": f"Rate limit. {CANARY}", "type": "rate_limit_error", "code": "rate_limit"}}
            return self._answer(json.dumps(error).encode(), "application/json", 429)
        whole, events = found
        reply = whole(asked, self.world.next_id())
        if not asked.get("stream") or events is None:
            return self._answer(json.dumps(reply).encode(), "application/json")
        lines = [(f"event: {e['type']}\n" if "type" in e else "") + f"data: {json.dumps(e)}\n\n" for e in events(reply)]
        if "type" not in events(reply)[0]:
            lines.append("data: [DONE]\n\n")
        return self._answer("".join(lines).encode(), "text/event-stream")

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        self._answer(b"{}", "application/json", 404)

    def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[tuple[str, World]]:
    """The server's base URL and what it has seen, until the block ends."""
    world = World()
    handler = type("Handler", (_Handler,), {"world": world})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield "http://{}:{}".format(*server.server_address[:2]), world
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
