"""What reading a reply costs, by wire format: `make bench-wire`, JSON on standard output.

Every recorded exchange of tests/corpus goes through its reader, fingerprints included, in pieces of 512 bytes for an
event stream and whole otherwise. Reported per format: microseconds of CPU for one exchange, the best of five rounds,
the median and the dearest of the format's exchanges, and nanoseconds for a byte of the dearest.
"""

import json
import time
from collections import defaultdict
from statistics import median

from tests.wire import corpus

ROUNDS = 5
REPEAT = 20


def main() -> None:
    """Measure and print."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for case in corpus.cases():
        body = corpus.body(case)
        size = 512 if body.lstrip().startswith((b"data", b"event", b":")) else max(len(body), 1)
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        reply = corpus.replay(case, pieces)
        if reply is None:
            continue
        best = min(_round(case, pieces) for _ in range(ROUNDS))
        found[reply.wire_format].append((best, len(body)))
    out = {}
    for name, times in sorted(found.items()):
        dearest, size = max(times)
        out[name] = {
            "exchanges": len(times),
            "median_us": round(median(spent for spent, _ in times), 1),
            "dearest_us": round(dearest, 1),
            "its_bytes": size,
        }
    print(json.dumps(out, indent=1))


def _round(case: dict[str, object], pieces: list[bytes]) -> float:
    begun = time.process_time_ns()
    for _ in range(REPEAT):
        corpus.replay(case, pieces)
    return (time.process_time_ns() - begun) / REPEAT / 1_000


if __name__ == "__main__":
    main()
