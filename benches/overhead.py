"""What watching a call costs its caller: `make bench-overhead`, about a minute, JSON on standard output.

One process takes turns in small blocks: uninstrumented, with the floor (see floor.py), with spendwatch. All three meet
the same spells of a busy machine; the order changes each round. Reported per call: CPU of the calling thread in the
quiet quarter of the blocks, what is added to it, and the ratio of both additions. "export" cases send to the bench's
own receiver instead of a no-op pipeline and count the CPU of all threads, sending included.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx
import httpx2
import openai
from opentelemetry.sdk.trace import TracerProvider

import spendwatch
from benches.floor import Floor
from benches.provider import CLAUDE, MODEL

ROUNDS = int(os.environ.get("ROUNDS", "24"))
ASK: Any = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Why is the bill so high?"}]
LARGE: Any = [ASK[0], {"role": "user", "content": "some of the context that an agent carries along, " * 20_000}]
TARGETS = {"call": 120, "stream": 500, "large": 250, "export": 250}
MEANINGFUL_US = 20
WARM = {"call": 5, "stream": 1, "large": 2, "export": 5}
"""Calls before a block is measured: what a change of hooks cools down."""

Call = Callable[[], object]


def calls(base: str) -> dict[str, tuple[str, int, Call]]:
    """Name -> (kind, calls in a block, one call)."""
    chat = openai.OpenAI(api_key="sk-bench", base_url=f"{base}/chat/v1", max_retries=0)
    stream = openai.OpenAI(api_key="sk-bench", base_url=f"{base}/chat-stream/v1", max_retries=0)
    large = openai.OpenAI(api_key="sk-bench", base_url=f"{base}/chat-large/v1", max_retries=0)
    message = anthropic.Anthropic(api_key="sk-bench", base_url=f"{base}/message", max_retries=0)
    messages = anthropic.Anthropic(api_key="sk-bench", base_url=f"{base}/message-stream", max_retries=0)
    body = json.dumps({"model": MODEL, "messages": ASK}).encode()
    sent = {"authorization": "Bearer sk-bench", "content-type": "application/json"}
    url = f"{base}/chat/v1/chat/completions"
    one, two = httpx.Client(), httpx2.Client()
    told: Any = {"model": MODEL, "messages": ASK}
    said: Any = {"model": CLAUDE, "max_tokens": 100, "system": "You are terse.", "messages": ASK[1:]}
    usage: Any = {"stream": True, "stream_options": {"include_usage": True}}
    return {
        "httpx": ("call", 60, lambda: one.post(url, content=body, headers=sent).json()),
        "httpx2": ("call", 60, lambda: two.post(url, content=body, headers=sent).json()),
        "openai": ("call", 30, lambda: chat.chat.completions.create(**told)),
        "anthropic": ("call", 30, lambda: message.messages.create(**said)),
        "openai stream": ("stream", 3, lambda: sum(1 for _ in stream.chat.completions.create(**told, **usage))),
        "anthropic stream": ("stream", 5, lambda: sum(1 for _ in messages.messages.create(**said, stream=True))),
        "openai large": ("large", 8, lambda: large.chat.completions.create(model=MODEL, messages=LARGE)),
    }


def measure(
    kind: str, count: int, call: Call, ways: dict[str, tuple[Call, Call]], clock: Callable[[], int]
) -> dict[str, object]:
    """One case: blocks by turns, each way put in before its block and taken out after it."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        order = list(ways) if turn % 2 else list(reversed(ways))
        for name in order:
            put_in, take_out = ways[name]
            put_in()
            try:
                for _ in range(WARM[kind]):
                    call()
                begun = clock()
                for _ in range(count):
                    call()
                if kind == "export":
                    spendwatch.flush()
                if turn:
                    spent[name].append((clock() - begun) / count / 1_000)
            finally:
                take_out()
    base = quiet(spent["off"])
    found: dict[str, object] = {"uninstrumented_us": round(base)}
    for name in ways:
        if name != "off":
            paired = statistics.median(a - b for a, b in zip(spent[name], spent["off"], strict=True))
            found[f"{name}_us"] = round(quiet(spent[name]) - base)
            found[f"{name}_paired_us"] = round(paired)
    if "floor_us" in found:
        ours, floor = float(str(found["spendwatch_us"])), float(str(found["floor_us"]))
        # Below that the floor is lost in the noise, and a ratio to it says nothing.
        found["ratio_to_floor"] = round(ours / floor, 2) if floor >= MEANINGFUL_US else None
    found["target_us"] = TARGETS[kind]
    return found


def quiet(values: list[float]) -> float:
    """The first quartile."""
    return sorted(values)[len(values) // 4]


def heap(call: Call, ways: dict[str, tuple[Call, Call]]) -> dict[str, int]:
    """Peak bytes that Python allocates during one call, each way."""
    found = {}
    for name, (put_in, take_out) in ways.items():
        put_in()
        call()
        gc.collect()
        tracemalloc.start()
        call()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        found[name] = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        take_out()
    return found


def stall(endpoint: str) -> dict[str, float]:
    """The longest of 10,000 calls and the longest halt of the garbage collector in them, without and with export."""
    reply = json.dumps(
        {"id": "x", "model": MODEL, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    )
    client = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, text=reply)))
    found = {}
    halts: list[int] = []
    began = 0

    def collector(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter_ns()
        else:
            halts.append(time.perf_counter_ns() - began)

    gc.callbacks.append(collector)
    for name in ("off", "spendwatch"):
        if name == "spendwatch":
            spendwatch.instrument(endpoint=endpoint)
        halts.clear()
        longest = 0
        for _ in range(10_000):
            begun = time.perf_counter_ns()
            client.post("https://api.openai.com/v1/chat/completions", json={"model": MODEL, "messages": ASK})
            longest = max(longest, time.perf_counter_ns() - begun)
        found[f"{name}_longest_call_ms"] = round(longest / 1e6, 1)
        found[f"{name}_longest_collection_ms"] = round(max(halts, default=0) / 1e6, 1)
    gc.callbacks.remove(collector)
    spendwatch.flush()
    spendwatch.uninstrument()
    return found


_STARTUP = """
import json, os, resource, httpx2, openai
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def rss():
    with open("/proc/self/statm") as f: return int(f.read().split()[1]) * 4096
c, m = cpu(), rss()
import spendwatch
spendwatch.instrument()
print(json.dumps([cpu() - c, (rss() - m) / 1e6]))
"""


def startup(spool: str) -> dict[str, float]:
    """CPU seconds and megabytes that importing and instrument() add to a process that has the openai SDK."""
    env = {**os.environ, "SPENDWATCH_SPOOL_DIR": spool}
    done = [json.loads(subprocess.check_output([sys.executable, "-c", _STARTUP], env=env)) for _ in range(5)]
    return {"cpu_s": round(min(d[0] for d in done), 3), "rss_mb": round(min(d[1] for d in done), 1)}


@contextmanager
def provider() -> Iterator[str]:
    """The bench's provider and receiver in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benches.provider"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()


def main(only: list[str]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as spool, provider() as base:
        os.environ["SPENDWATCH_SPOOL_DIR"] = spool
        nothing = TracerProvider()
        floor = Floor([httpx, httpx2], nothing)
        ways: dict[str, tuple[Call, Call]] = {
            "off": (lambda: None, lambda: None),
            "floor": (floor.install, floor.remove),
            "spendwatch": (lambda: spendwatch.instrument(tracer_provider=nothing), spendwatch.uninstrument),
        }
        export = {
            "off": ways["off"],
            "spendwatch": (lambda: spendwatch.instrument(endpoint=base), spendwatch.uninstrument),
        }
        cases = calls(base)
        wanted = [name for name in cases if not only or name in only]
        found: dict[str, object] = {"load": os.getloadavg()[0], "rounds": ROUNDS}
        for name in wanted:
            kind, count, call = cases[name]
            found[name] = measure(kind, count, call, ways, time.thread_time_ns)
            print(name, found[name], file=sys.stderr, flush=True)
        if not only or "export" in only:
            found["openai, exported"] = measure("export", 100, cases["openai"][2], export, time.process_time_ns)
            found["peak_heap_of_a_large_call_bytes"] = heap(cases["openai large"][2], ways)
            found["stall"] = stall(base)
            found["startup"] = startup(spool)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
