"""What watching holds in memory: at most 64 KiB for an open stream, and nothing of a call that is over."""

import gc
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from itertools import cycle

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

import spendwatch
from spendwatch import runtime
from spendwatch.hooks.exchange import Exchange, live, open_exchange
from spendwatch.hooks.stream import bodies
from spendwatch.wire import Request
from tests.hooks.replies import ASK, CHAT

BOUND = 64 * 1024
LENGTH = 2 * 1024 * 1024
PassingSync, _ = bodies(httpx)
Pieces = Iterator[bytes]


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    spendwatch.instrument(tracer_provider=TracerProvider())
    yield
    spendwatch.uninstrument()


def begin(host: str, path: str, headers: dict[str, str], body: bytes | None = None, key: str = "sk") -> Exchange:
    recorder = runtime.recorder()
    assert recorder is not None
    sent = json.dumps({**ASK, "stream": True, "max_tokens": 9}).encode() if body is None else body
    request = Request("POST", host, None, path, {"authorization": f"Bearer {key}"}, sent)
    exchange = open_exchange(recorder, request, http_span=False)
    assert exchange is not None
    exchange.head(200, headers)
    return exchange


def chunk(**delta: object) -> bytes:
    return b"data: %s\n\n" % json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta}]}).encode()


def call(index: int, arguments: str) -> bytes:
    return chunk(tool_calls=[{"index": index, "function": {"name": f"tool{index}", "arguments": arguments}}])


def over_and_over(*events: bytes, first: bytes = b"") -> Pieces:
    if first:
        yield first
    for event in cycle(events):
        # Each an object of its own, as a client reads them.
        yield bytes(bytearray(event))


def byte_by_byte(events: Pieces) -> Pieces:
    for event in events:
        for at in range(len(event)):
            yield bytes(bytearray(event[at : at + 1]))


def zipped(event: bytes) -> Pieces:
    machine = zlib.compressobj(wbits=31)
    packed = [machine.compress(event) + machine.flush(zlib.Z_SYNC_FLUSH) for _ in range(LENGTH // len(event))]
    return (bytes(bytearray(piece)) for piece in packed)


WORD = chunk(content="a word and ")
DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"text_delta","text":"a word and "}}\n\n'
)
INPUT = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"input_json_delta","partial_json":"{\\"a\\": "}}\n\n'
)
LINE = b'{"model":"m","message":{"role":"assistant","content":"a word"},"done":false}\n'
OPENAI, ANTHROPIC = ("api.openai.com", "/v1/chat/completions"), ("api.anthropic.com", "/v1/messages")
OLLAMA = ("localhost", "/api/chat")
GZIP = {"content-encoding": "gzip"}
STREAMS: dict[str, tuple[tuple[str, str], Callable[[], Pieces], dict[str, str]]] = {
    "words": (OPENAI, lambda: over_and_over(WORD), {}),
    "words of Anthropic's": (ANTHROPIC, lambda: over_and_over(DELTA), {}),
    "Anthropic's input of tools": (ANTHROPIC, lambda: over_and_over(INPUT), {}),
    "other scripts": (OPENAI, lambda: over_and_over(chunk(content="这个月的账单"), chunk(content="😀" * 40)), {}),
    "byte by byte": (OPENAI, lambda: byte_by_byte(over_and_over(WORD)), {}),
    "line ends of two bytes": (OPENAI, lambda: over_and_over(WORD.replace(b"\n", b"\r\n")), {}),
    "arguments of 200 tools": (OPENAI, lambda: over_and_over(*(call(n, '{"a":') for n in range(200))), {}),
    "an event without an end": (OPENAI, lambda: over_and_over(b"y" * 1000, first=b'data: {"x": "'), {}),
    "text, arguments, then an event without an end": (
        OPENAI,
        lambda: over_and_over(b"y" * 700, first=chunk(content="x" * 9000) + call(0, "a" * 20_000) + b"data: {"),
        {},
    ),
    "an event of lines without an end": (OPENAI, lambda: over_and_over(b'data: {"x": "y"}\n'), {}),
    "comments": (OPENAI, lambda: over_and_over(b": still here\n\n"), {}),
    "lines of JSON": (OLLAMA, lambda: over_and_over(LINE), {}),
    "gzip": (OPENAI, lambda: zipped(WORD), GZIP),
}


@pytest.mark.parametrize("name", STREAMS)
def test_an_open_stream_holds_at_most_64_kib_whatever_its_length(name: str) -> None:
    (host, path), pieces, headers = STREAMS[name]
    source = pieces()
    # What is made once for all calls is made by this one.
    begin(host, path, headers).end(complete=False)
    tracemalloc.start()
    try:
        exchange = begin(host, path, {"content-type": "text/event-stream", **headers})
        passing = PassingSync(source, exchange)
        length = most = 0
        for number, piece in enumerate(passing):
            length += len(piece)
            if number % 50 == 0:
                most = max(most, tracemalloc.get_traced_memory()[0])
            if length > LENGTH // (10 if name == "byte by byte" else 1):
                break
        passing.close()
    finally:
        tracemalloc.stop()
    assert exchange not in live
    assert 1024 < most < BOUND, most


def test_nothing_is_kept_of_calls_that_are_over() -> None:
    def calls(numbers: range) -> None:
        for number in numbers:
            # Everything that a cache could be kept by is another one each time.
            body = json.dumps({**ASK, "model": f"model-{number}", "user": f"user-{number}"}).encode()
            reply = {**CHAT, "id": f"chatcmpl-{number}", "model": f"model-{number}-2026", "provider": f"p{number}"}
            exchange = begin(f"host{number}.example", OPENAI[1], {}, body, key=f"sk-{number}")
            exchange.feed(json.dumps(reply).encode())
            exchange.end(complete=True)

    # Caches of a bounded size are full by then.
    calls(range(700))
    gc.collect()
    tracemalloc.start()
    try:
        calls(range(700, 2_700))
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # What the bounded caches hold has been replaced, and is counted here.
    assert kept < 1024 * 1024, kept
