"""How the work of every reader grows with its input: CPU seconds for a size and for eight times that size.

Linear work gives a ratio of about 8, quadratic work 64. The bound stands between them, and above what a busy machine
adds; the shapes are those that make a careless reader look at the same bytes again and again.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence

from spendwatch.wire.formats import Kind
from tests.fuzz.harness import read, seeds

FACTOR = 8
BOUND = 28.0
TOO_QUICK_S = 0.004
"""A shape is grown until its smaller size takes this long: below it the clock says little."""
START, MOST = 4 * 1024, 64 * 1024

_USAGE = b'"usage":{"prompt_tokens":1,'
SHAPES: dict[str, Callable[[int], bytes]] = {
    "spaces": lambda n: b" " * n + b"{}",
    "open braces": lambda n: b'{"a":' * (n // 5),
    "open brackets": lambda n: b"[" * n,
    "one unfinished text": lambda n: b'{"id":"' + b"x" * n,
    "backslashes": lambda n: b'{"id":"' + b"\\" * n + b'"}',
    "lone surrogates": lambda n: b'{"id":"' + b"\\ud800" * (n // 6) + b'"}',
    "bytes that are no UTF-8": lambda n: b'{"id":"' + b"\xff" * n + b'"}',
    "unfinished usages": lambda n: b"{" + _USAGE * (n // len(_USAGE)),
    "unfinished usages in one event": lambda n: b"data: {" + _USAGE * (n // len(_USAGE)),
    "an array of objects": lambda n: b"[" + b'{"a":1},' * (n // 8),
    "an array of unfinished objects": lambda n: b"[" + b'{"a":[' * (n // 6),
    "many calls": lambda n: b'{"choices":[{"message":{"tool_calls":[' + b'{"function":{"name":"f"}},' * (n // 26),
    "many blocks": lambda n: b'{"content":[' + b'{"type":"text","text":"a"},' * (n // 27) + b'{}],"type":"message"}',
    "empty lines": lambda n: b"data: {}" + b"\n" * n,
    "carriage returns": lambda n: b"data: {}" + b"\r" * n,
    "lines of one event": lambda n: b"data: a\n" * (n // 8),
    "comments": lambda n: b": keep-alive\n\n" * (n // 14),
    "empty events": lambda n: b"data: {}\n\n" * (n // 10),
    "broken events": lambda n: b'data: {"a":\n\n' * (n // 13),
    "broken error events": lambda n: b"event: error\ndata: {\n\n" * (n // 23),
    "lines of JSON": lambda n: b'{"a":1}\n' * (n // 8),
    "tiny messages": lambda n: b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0" * (n // 16),
    "zeros": lambda n: b"\0" * n,
    "a large number": lambda n: b'{"usage":{"prompt_tokens":' + b"9" * n + b"}}",
    "a large fraction": lambda n: b'{"usage":{"cost":0.' + b"1" * n + b"}}",
}
_HISTORY = b'{"role":"user","content":"a"},'
REQUESTS: dict[str, Callable[[int], bytes]] = {
    "many messages": lambda n: b'{"model":"m","messages":[' + _HISTORY * (n // len(_HISTORY)) + b'{"role":"user"}]}',
    "messages without an end": lambda n: b'{"model":"m","messages":[' + _HISTORY * (n // len(_HISTORY)),
    "one long message": lambda n: b'{"messages":[{"role":"user","content":"' + b"a" * n + b'"}],"model":"m"}',
    "brackets in a text": lambda n: b'{"messages":[{"role":"user","content":"' + b"]," * (n // 2) + b'"}],"model":"m"}',
    "braces in a text": lambda n: b'{"messages":[{"role":"user","content":"' + b"{[, " * (n // 4) + b'"}]}',
    "many contents": lambda n: b'{"contents":[' + b'{"parts":[{"text":"a"}]},' * (n // 24) + b"{}]}",
    "a long text": lambda n: b'{"input":"' + b"a b " * (n // 4) + b'","prompt":"' + b"a" * 10 + b'"}',
    "a form": lambda n: b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n' * (n // 55),
    "names of a form": lambda n: b"name=model" * (n // 10),
}


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _seconds(kind: Kind, sent: bytes | None, data: bytes, piece: int) -> float:
    """The least of two measurements, without the garbage collector, whose share follows what else is in memory."""
    taken = []
    gc.disable()
    try:
        for _ in range(2):
            began = time.process_time()
            read(kind, sent, _pieces(data, piece), 200, True)
            taken.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(taken)


def shapes() -> Iterator[tuple[str, Callable[[int], tuple[bytes | None, bytes]], int]]:
    """(what it is, size -> request and reply, size of the pieces the reply comes in)."""
    for name, shape in SHAPES.items():
        for piece in (1 << 30, 7):
            yield f"{name}, {'whole' if piece > 7 else 'in pieces'}", lambda n, shape=shape: (None, shape(n)), piece
    for name, shape in REQUESTS.items():
        yield f"a request: {name}", lambda n, shape=shape: (shape(n), b"{}"), 1 << 30


def check_growth(kinds: Sequence[Kind]) -> list[str]:
    """What grows too fast: reader, shape, sizes and the ratio."""
    found = []
    seed_shapes = [
        (f"a seed again and again ({seed[:24]!r})", lambda n, seed=seed: (None, seed * (n // len(seed) + 1)), 1 << 30)
        for seed in seeds()[::6]
    ]
    for kind in kinds:
        for name, make, piece in (*shapes(), *seed_shapes):
            size = START
            sent, data = make(size)
            small = _seconds(kind, sent, data, piece)
            while small < TOO_QUICK_S and size < MOST:
                size *= 4
                sent, data = make(size)
                small = _seconds(kind, sent, data, piece)
            sent, data = make(size * FACTOR)
            large = _seconds(kind, sent, data, piece)
            if large > BOUND * max(small, TOO_QUICK_S):
                found.append(
                    f"{kind.reader.wire_format} {kind.path}: {name}: {size} bytes took {small:.4f} s, "
                    f"{size * FACTOR} took {large:.4f} s"
                )
    return found
