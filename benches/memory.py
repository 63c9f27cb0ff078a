"""What watching keeps in memory: `make bench-memory`, about two minutes, JSON on standard output.

"held": bytes that watching keeps of one open stream, by what is streamed and how many pieces have passed; the mean of
STREAMS that are open at once, what the same streams take unwatched taken off. "growth": CALLS calls whose models, keys
and replies all differ, exported to the bench's own receiver; memory blocks in use and resident megabytes after each
tenth. The first one fills caches of a bounded size; what grew after it would grow for ever.
"""

import gc
import json
import os
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle, islice

import httpx2
from opentelemetry.sdk.trace import TracerProvider

import spendwatch
from benches.overhead import provider

CALLS = int(os.environ.get("CALLS", "100000"))
STREAMS = 10
PIECES = (200, 2_000, 10_000)
OPENAI = "https://api.openai.com/v1/chat/completions"
ANTHROPIC = "https://api.anthropic.com/v1/messages"
ASK = {"model": "m", "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}


def _chunk(**delta: object) -> bytes:
    base = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return b"data: %s\n\n" % json.dumps({**base, "choices": [choice], "usage": None}).encode()


_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"text_delta","text":"word "}}\n\n'
)
_ARGUMENTS = [{"index": 0, "function": {"name": "f", "arguments": "word "}}]
KINDS: dict[str, tuple[str, list[bytes]]] = {
    "openai words": (OPENAI, [_chunk(content="word ")]),
    "anthropic words": (ANTHROPIC, [_DELTA]),
    "a tool's arguments": (OPENAI, [_chunk(tool_calls=_ARGUMENTS)]),
    "single bytes": (OPENAI, [b"%c" % byte for byte in _chunk(content="word ")]),
    "one endless event": (OPENAI, [b'data: "' + b"word " * 20]),
}


class _Body(httpx2.SyncByteStream):
    def __init__(self, events: list[bytes]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[bytes]:
        for number, event in enumerate(cycle(self._events)):
            # Each piece an object of its own, as the network gives them.
            yield bytes(bytearray(event[7:] if number and event.startswith(b'data: "') else event))


def held(url: str, events: list[bytes]) -> dict[int, int]:
    """Traced bytes for one open stream, after so many pieces."""
    found = {}

    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Body(events))

    with httpx2.Client(transport=httpx2.MockTransport(reply)) as client, ExitStack() as opened:
        client.send(client.build_request("POST", url, json=ASK), stream=True).close()
        gc.collect()
        tracemalloc.start()
        open_ = [client.send(client.build_request("POST", url, json=ASK), stream=True) for _ in range(STREAMS)]
        bodies = []
        for response in open_:
            opened.callback(response.close)
            bodies.append(response.iter_raw())
        done = 0
        for pieces in PIECES:
            for body in bodies:
                for _ in islice(body, pieces - done):
                    pass
            done = pieces
            found[pieces] = tracemalloc.get_traced_memory()[0] // STREAMS
        tracemalloc.stop()
    return found


def growth(endpoint: str) -> list[dict[str, float]]:
    """Blocks in use and resident megabytes after each tenth of the calls."""
    number = 0

    def reply(_: httpx2.Request) -> httpx2.Response:
        usage = {"prompt_tokens": number, "completion_tokens": 1}
        said = {"index": 0, "message": {"role": "assistant", "content": f"answer {number}"}, "finish_reason": "stop"}
        return httpx2.Response(
            200, json={"id": f"c{number}", "model": f"model-{number}", "choices": [said], "usage": usage}
        )

    spendwatch.instrument(endpoint=endpoint)
    found = []
    with httpx2.Client(transport=httpx2.MockTransport(reply)) as client:
        for tenth in range(10):
            for number in range(tenth * CALLS // 10, (tenth + 1) * CALLS // 10):
                asked = {"model": f"model-{number}", "messages": [{"role": "user", "content": f"question {number}"}]}
                client.post(OPENAI, json=asked, headers={"authorization": f"Bearer sk-{number}"})
            spendwatch.flush()
            gc.collect()
            with open("/proc/self/statm") as numbers:
                resident = int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            found.append({"blocks": sys.getallocatedblocks(), "resident_mb": round(resident / 1e6, 1)})
            print(f"{(tenth + 1) * CALLS // 10} calls", found[-1], file=sys.stderr, flush=True)
    spendwatch.uninstrument()
    return found


def main() -> None:
    """Measure and print."""
    ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "off": (lambda: None, lambda: None),
        "on": (lambda: spendwatch.instrument(tracer_provider=TracerProvider()), spendwatch.uninstrument),
    }
    out: dict[str, object] = {"bound_bytes": 64 * 1024}
    for name, (url, events) in KINDS.items():
        seen = {}
        for way, (put_in, take_out) in ways.items():
            put_in()
            seen[way] = held(url, events)
            take_out()
        out[f"held: {name}"] = {pieces: seen["on"][pieces] - seen["off"][pieces] for pieces in PIECES}
        print(name, out[f"held: {name}"], file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as spool, provider() as base:
        os.environ["SPENDWATCH_SPOOL_DIR"] = spool
        out[f"growth over {CALLS} calls"] = growth(base)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
