"""What an outage of the server does to an app: calls at a fixed rate, the server gone from 30 % to 70 % of them.

    python -m benches.outage [--calls 10000] [--rate 250] [--kinds refused hangs none off]

refused: nothing listens. hangs: it accepts and never answers. none: no outage. off: without spendwatch, the machine's
own noise. Prints one JSON object per kind: what arrived before the app's process had ended and after one more process
had started, what arrived twice, how long a call took for the app, and how long the process took to end after its last
call (without a flush). Everything is on loopback, each part a process of its own.
"""

import argparse
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.hooks.loopback import Loopback
from tests.hooks.replies import ASK, CHAT_BODY, PATH
from tests.sdk.sink import Say, Sink

ROOT = Path(__file__).parents[1]
AWAY, BACK = 0.3, 0.7


def provide() -> None:
    """The provider: answers the same to everyone until its input ends."""
    with Loopback() as server:
        server.always(CHAT_BODY, framing="length")
        print(server.url, flush=True)
        sys.stdin.read()


def work(url: str, calls: int, rate: float, instrumented: bool) -> None:
    """The app: calls at its rate, and says when it has made which part of them."""
    import httpx

    if instrumented:
        import spendwatch

        spendwatch.instrument(service="outage")
    marks = {int(calls * AWAY): "away", int(calls * BACK): "back"}
    took: list[float] = []
    with httpx.Client(trust_env=False) as client:
        for _ in range(5):
            client.post(url + PATH, json=ASK)
        gc.collect()
        start = time.perf_counter()
        for n in range(calls):
            if n in marks:
                print(marks[n], flush=True)
                sys.stdin.readline()
                start = time.perf_counter() - n / rate
            left = start + n / rate - time.perf_counter()
            if left > 0:
                time.sleep(left)
            at = time.perf_counter()
            client.post(url + PATH, json=ASK).raise_for_status()
            took.append(time.perf_counter() - at)
    took.sort()
    figures = {
        "p50_ms": round(took[len(took) // 2] * 1e3, 2),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 2),
        "longest_ms": round(took[-1] * 1e3, 2),
        "cpu_s": round(time.process_time(), 2),
    }
    print(json.dumps(figures), flush=True)


def one(kind: str, calls: int, rate: float, provider: str) -> dict[str, Any]:
    """Run one kind to its end."""
    out: dict[str, Any] = {"kind": kind, "calls": calls + 5, "rate": rate}
    with tempfile.TemporaryDirectory(prefix="spendwatch-outage-") as spool, contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        port = sink.port
        sinks = [sink]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SPENDWATCH_", "OTEL_"))}
        env |= {"SPENDWATCH_ENDPOINT": sink.url, "SPENDWATCH_SPOOL_DIR": spool, "NO_PROXY": "*"}
        app = subprocess.Popen(
            [sys.executable, "-m", "benches.outage", "work", provider, str(calls), str(rate), str(int(kind != "off"))],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert app.stdin is not None
        assert app.stdout is not None
        for line in app.stdout:
            if line == "away\n":
                if kind == "refused":
                    stack.close()
                elif kind == "hangs":
                    sink.say = lambda post: Say(hang_s=300)
            elif line == "back\n":
                if kind == "refused":
                    sink = stack.enter_context(Sink(port))
                    sinks.append(sink)
                elif kind == "hangs":
                    sink.say = lambda post: Say()
            else:
                out |= json.loads(line)
                break
            app.stdin.write("go\n")
            app.stdin.flush()
        left = time.monotonic()
        app.wait()
        out["exit_s"] = round(time.monotonic() - left, 2)
        if kind != "off":
            out["arrived_pct"] = round(100 * len(_total(sinks)) / (calls + 5), 3)
            program = "import spendwatch; spendwatch.instrument(); print(spendwatch.flush(30))"
            subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
            final = _total(sinks)
            out["arrived_with_the_next_process_pct"] = round(100 * len(final) / (calls + 5), 3)
            out["arrived_twice"] = final.total() - len(final)
            out["left_on_disk_bytes"] = sum(p.stat().st_size for p in Path(spool).rglob("*.spool"))
    return out


def _total(sinks: list[Sink]) -> Counter[str]:
    """How often each span was taken, over all the receivers that stood at the address."""
    return sum((sink.taken for sink in sinks), Counter[str]())


def main() -> None:
    """Measure, or be one of the measured parts."""
    if sys.argv[1:2] == ["provide"]:
        provide()
        return
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "1")
        return
    parser = argparse.ArgumentParser(prog="python -m benches.outage", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=250)
    parser.add_argument("--kinds", nargs="+", default=["refused", "hangs"], choices=["refused", "hangs", "none", "off"])
    options = parser.parse_args()
    provider = subprocess.Popen(
        [sys.executable, "-m", "benches.outage", "provide"],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert provider.stdout is not None
    assert provider.stdin is not None
    try:
        url = provider.stdout.readline().strip()
        for kind in options.kinds:
            print(json.dumps(one(kind, options.calls, options.rate, url)), flush=True)
    finally:
        provider.stdin.close()
        provider.wait()


if __name__ == "__main__":
    main()
