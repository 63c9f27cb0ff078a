"""Score the loop detector on recorded agent runs: `python -m tests.loops.score RUNS.jsonl.gz`.

A run is one line of JSON with calls as keyed hashes (see data/README.md). A hit is a looping run told at or after the
onset of its loop; a false positive is a run labelled healthy or long_but_productive that was told at all.
"""

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from spendwatch.calls import Fingerprint, LLMCall, Tags, TokenUsage, ToolFingerprint
from spendwatch.loops import Detector, Verdict

LOOPS = ("stuck_exact_repeat", "stuck_alternating", "stuck_near_repeat", "error_retry_storm")
HEALTHY = ("healthy", "long_but_productive")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def load(path: Path) -> Iterator[dict[str, Any]]:
    """The runs of a (gzipped) JSON-lines file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


def calls(run: dict[str, Any]) -> Iterator[LLMCall]:
    """The run as an observer would have recorded it. Where no time is recorded, a call starts every ten seconds."""
    for call in run["calls"]:
        fp, index = call["fp"], call["i"]
        seconds = call["t"] if run["t_real"] and call["t"] is not None else 10 * index
        tools = tuple(
            ToolFingerprint(name=t["name"], arguments=t["args_hash"], arguments_simhash=t["args_sim"] or "")
            for t in fp["tools"]
        )
        yield LLMCall(
            trace_id=f"{index + 1:032x}",
            span_id=f"{index + 1:016x}",
            started_at=EPOCH + timedelta(seconds=seconds),
            duration_us=1_000_000,
            provider_name="openai",
            request_model=call["model"],
            usage=TokenUsage(input_tokens=call["input_tokens"], output_tokens=call["output_tokens"]),
            tags=Tags(agent=call["agent"], session=run["run_id"]),
            fingerprint=Fingerprint(
                system=fp["system"],
                last=fp["last"],
                last_role=fp["last_role"],
                last_simhash=fp["last_sim"],
                last_length=fp["last_len"],
                last_is_error=fp["last_error"],
                last_normalised=fp["last"],
                messages=fp["n_messages"],
                tools=tools,
                response=fp["response"],
                response_simhash=fp["resp_sim"],
                response_length=fp["resp_len"],
            ),
        )


def verdicts(run: dict[str, Any]) -> list[tuple[int, Verdict]]:
    """What a fresh detector says about a run: call index and verdict."""
    detector = Detector()
    told = ((index, detector.observe(call)) for index, call in enumerate(calls(run)))
    return [(index, verdict) for index, verdict in told if verdict is not None]


def main() -> None:
    """Print recall, precision and false positives, in all and by source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    positives: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    false: Counter[str] = Counter()
    delays: list[int] = []
    for path in parser.parse_args().runs:
        for run in load(path):
            label, source = run["label"], run["source"]
            if label not in LOOPS + HEALTHY:
                continue
            found = verdicts(run)
            if label in HEALTHY:
                negatives[source] += 1
                false[source] += bool(found)
                continue
            late = [index for index, _ in found if index >= run["onset"]]
            for group in (source, label):
                positives[group] += 1
                hits[group] += bool(late)
            if late:
                delays.append(late[0] - run["rep2"])
    all_positive, all_hit = (sum(c[label] for label in LOOPS) for c in (positives, hits))
    all_negative, all_false = sum(negatives.values()), sum(false.values())
    print(f"recall {all_hit}/{all_positive} = {all_hit / max(1, all_positive):.3f}")
    print(f"precision {all_hit}/{all_hit + all_false} = {all_hit / max(1, all_hit + all_false):.3f}")
    print(f"false positives {all_false}/{all_negative} = {1000 * all_false / max(1, all_negative):.1f} per 1,000")
    print(f"delay after the second occurrence: median {median(delays) if delays else '-'} calls")
    for label in LOOPS:
        print(f"  {label:24s} recall {hits[label]}/{positives[label]}")
    for source in sorted({*negatives, *positives} - {*LOOPS}):
        print(f"  {source:24s} recall {hits[source]}/{positives[source]}  false {false[source]}/{negatives[source]}")


if __name__ == "__main__":
    main()
