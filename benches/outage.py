"""What an outage of the server does to an app: calls at a fixed rate, the server gone for a while in their midst.

    python -m benches.outage [--seconds 12 16 12] [--rate 250] [--kinds refused hangs none off]

seconds: before, during and after the outage; `--seconds 60 600 60 --rate 100` is ten minutes of it. refused: nothing
listens. hangs: it accepts and never answers. none: no outage. off: without spendwatch, the machine's own noise. Prints
one JSON object per kind: what arrived before the app's process had ended and after one more process had started, what
arrived twice, how long a call took for the app in each of the three parts, the p99 during and after the outage as a
ratio to the one before, the largest the spool became, and how long the process took to end after its last call (without
a flush). Everything is on loopback, each part a process of its own.
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
PARTS = ("before", "during", "after")


def provide() -> None:
    """The provider: answers the same to everyone until its input ends."""
    with Loopback() as server:
        server.always(CHAT_BODY, framing="length")
        print(server.url, flush=True)
        sys.stdin.read()


def work(url: str, parts: list[int], rate: float, instrumented: bool) -> None:
    """The app: so many calls before, during and after the outage, at its rate. It says when a part begins."""
    import httpx

    if instrumented:
        import spendwatch

        spendwatch.instrument(service="outage")
    marks = {parts[0]: "away", parts[0] + parts[1]: "back"}
    took: list[float] = []
    with httpx.Client(trust_env=False) as client:
        for _ in range(5):
            client.post(url + PATH, json=ASK)
        gc.collect()
        start = time.perf_counter()
        for n in range(sum(parts)):
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
    figures: dict[str, Any] = {}
    at_part = 0
    for name, count in zip(PARTS, parts, strict=True):
        figures |= _quantiles(name, sorted(took[at_part : at_part + count]))
        at_part += count
    for name in PARTS[1:]:
        figures[f"{name}_p99_ratio"] = round(figures[f"{name}_p99_ms"] / figures["before_p99_ms"], 2)
    print(json.dumps(figures | {"cpu_s": round(time.process_time(), 2)}), flush=True)


def _quantiles(name: str, took: list[float]) -> dict[str, Any]:
    return {
        f"{name}_p50_ms": round(took[len(took) // 2] * 1e3, 2),
        f"{name}_p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 2),
        f"{name}_longest_ms": round(took[-1] * 1e3, 2),
    }


def one(kind: str, parts: list[int], rate: float, provider: str) -> dict[str, Any]:
    """Run one kind to its end."""
    calls = sum(parts)
    out: dict[str, Any] = {"kind": kind, "calls": calls + 5, "rate": rate}
    with tempfile.TemporaryDirectory(prefix="spendwatch-outage-") as spool, contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        port = sink.port
        sinks = [sink]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SPENDWATCH_", "OTEL_"))}
        env |= {"SPENDWATCH_ENDPOINT": sink.url, "SPENDWATCH_SPOOL_DIR": spool, "NO_PROXY": "*"}
        app = subprocess.Popen(
            [
                *(sys.executable, "-m", "benches.outage", "work", provider),
                *(*map(str, parts), str(rate), str(int(kind != "off"))),
            ],
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
                out["spool_mib"] = round(_spooled(spool) / 2**20, 1)
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
            out["left_on_disk_bytes"] = _spooled(spool)
    return out


def _spooled(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*.spool"))


def _total(sinks: list[Sink]) -> Counter[str]:
    """How often each span was taken, over all the receivers that stood at the address."""
    return sum((sink.taken for sink in sinks), Counter[str]())


def main() -> None:
    """Measure, or be one of the measured parts."""
    if sys.argv[1:2] == ["provide"]:
        provide()
        return
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], [int(part) for part in sys.argv[3:6]], float(sys.argv[6]), sys.argv[7] == "1")
        return
    parser = argparse.ArgumentParser(prog="python -m benches.outage", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs=3, default=[12, 16, 12], metavar=("BEFORE", "AWAY", "AFTER"))
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
            parts = [max(1, int(seconds * options.rate)) for seconds in options.seconds]
            print(json.dumps(one(kind, parts, options.rate, url)), flush=True)
    finally:
        provider.stdin.close()
        provider.wait()


if __name__ == "__main__":
    main()
