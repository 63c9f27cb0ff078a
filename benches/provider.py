"""A provider on loopback for the benches: canned replies over HTTP/1.1, as fast as a thread can write them.

Run as a process of its own (`python -m benches.provider`), so that its work isn't counted as the client's; it prints
its port and ends with its standard input. The first part of a request's path names the reply; POSTs to /v1/traces are
taken and forgotten. Never here: anything a real provider decides.
"""

import json
import socket
import sys
import threading

MODEL = "gpt-4o-mini"
CLAUDE = "claude-sonnet-5"
CHUNKS = 200
WORDS = "The bill for this month is a little higher than the last one, because the crawler asked twice. "


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _chat(content: str) -> dict[str, object]:
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_795_521_600,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": CHAT_USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }


CHAT_USAGE = {
    "prompt_tokens": 1231,
    "completion_tokens": 47,
    "total_tokens": 1278,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 13, "audio_tokens": 0},
}
MESSAGE_USAGE = {
    "input_tokens": 31,
    "cache_creation_input_tokens": 400,
    "cache_read_input_tokens": 1024,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 47,
    "service_tier": "standard",
}
MESSAGE = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": CLAUDE,
    "content": [{"type": "text", "text": WORDS}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": MESSAGE_USAGE,
}


def _chat_stream() -> bytes:
    base = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    words = (WORDS * 20).split()[:CHUNKS]
    deltas: list[tuple[dict[str, object], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": f"{word} "}, None) for word in words]
    deltas.append(({}, "stop"))
    out = [
        {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": why}], "usage": None}
        for delta, why in deltas
    ]
    out.append({**base, "choices": [], "usage": CHAT_USAGE})
    return b"".join(b"data: " + _json(event) + b"\n\n" for event in out) + b"data: [DONE]\n\n"


def _message_stream() -> bytes:
    words = (WORDS * 20).split()[:CHUNKS]
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{word} "}}
            for word in words
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": MESSAGE_USAGE},
        {"type": "message_stop"},
    ]
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(e["type"]).encode(), _json(e)) for e in events)


def _reply(body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\nx-request-id: req_bench\r\n\r\n"
    return head % (kind, len(body)) + body


def _chunked(events: bytes) -> bytes:
    """Each event in a chunk of its own, as providers send them."""
    parts = [event + b"\n\n" for event in events.split(b"\n\n") if event]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


REPLIES = {
    b"chat": _reply(_json(_chat(WORDS))),
    b"chat-stream": _chunked(_chat_stream()),
    b"chat-large": _reply(_json(_chat(WORDS * 2_100))),
    b"message": _reply(_json(MESSAGE)),
    b"message-stream": _chunked(_message_stream()),
    b"v1": _reply(b"", b"application/x-protobuf"),
}


def serve(connection: socket.socket) -> None:
    """Answer the requests of one connection."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as file:
        while line := file.readline():
            length = 0
            while (header := file.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            file.read(length)
            connection.sendall(REPLIES[line.split(b"/", 2)[1].split(b" ")[0]])


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listening,), daemon=True).start()
    sys.stdin.read()
