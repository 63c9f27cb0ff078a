"""One fuzz case: bytes of a request and of a reply, in any pieces, through any reader. What must hold is checked here.

Invariant checked: nothing is raised, counts are whole numbers of at least 0 or None, the same bytes give the same Reply
in another split, and no input of this size takes longer than a quadratic reader would need by far.
"""

import hashlib
import itertools
import time
from collections.abc import Iterable
from pathlib import Path

from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply, Request, WireFormat
from spendwatch.wire.formats import _BEGUN, _CONTINUED, _INFERENCE, _KINDS, _WORKERS, Kind

SEEDS = Path(__file__).parent / "seeds"
KEYED = Fingerprinter(b"a key of the fuzzer")
SECONDS_PER_MEGABYTE = 20.0
"""Far above what any reader needs; a quadratic one passes it with some hundred kilobytes."""
MAX_KEPT = 16 * 1024
"""A finding above this is not kept as a seed: it is printed by its hash, and the growth check is for the large ones."""

KINDS: tuple[Kind, ...] = tuple(
    {
        (kind.reader, kind.path): kind
        for kinds in (*_KINDS.values(), *_BEGUN.values(), *_CONTINUED.values(), _INFERENCE, _WORKERS)
        for kind in kinds
    }.values()
)
"""Every way into a reader, each reader at each of its paths."""


def readers() -> dict[str, tuple[Kind, ...]]:
    """The ways in, by the name of the wire format."""
    found: dict[str, tuple[Kind, ...]] = {}
    for kind in KINDS:
        name = kind.reader.wire_format
        found[name] = (*found.get(name, ()), kind)
    return found


def seeds() -> list[bytes]:
    """The replies that fuzzing starts from: recorded ones, and what earlier runs found."""
    return [path.read_bytes() for path in sorted(SEEDS.glob("*.bin"))]


def keep(found: bytes) -> str:
    """Put an input that broke a promise among the seeds, and say where."""
    name = f"found-{hashlib.sha256(found).hexdigest()[:12]}.bin"
    if len(found) > MAX_KEPT:
        return f"(not kept: {len(found)} bytes, {name})"
    (SEEDS / name).write_bytes(found)
    return f"tests/fuzz/seeds/{name}"


def read(kind: Kind, sent: bytes | None, pieces: Iterable[bytes], status: int, complete: bool) -> Reply:
    """Read one exchange with a kind's reader."""
    within = kind.within or "/"
    path = f"{within}m{kind.path}" if kind.path.startswith(":") else f"{within.rstrip('/')}/m{kind.path}"
    request = Request("POST", "llm.example", None, path, {"content-type": "application/json"}, sent)
    reader = WireFormat(kind.reader, None).reader(request, KEYED)
    reader.head(status, {"content-type": "application/json"})
    for piece in pieces:
        reader.feed(piece)
    return reader.finish(complete)


def check(kind: Kind, sent: bytes | None, data: bytes, cuts: list[int], status: int, complete: bool) -> None:
    """Raise when a reader breaks a promise for this input."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    began = time.process_time()
    apart = read(kind, sent, pieces, status, complete)
    taken = time.process_time() - began
    whole = read(kind, sent, [data], status, complete)
    if apart != whole:
        raise AssertionError(f"{kind.reader.__name__}: expected the same reply in any split, found two")
    for name in apart.usage.__dataclass_fields__:
        count = getattr(apart.usage, name)
        if count is not None and (type(count) is not int or count < 0):
            raise AssertionError(f"{kind.reader.__name__}: expected {name} to be a count or None, found {count!r}")
    if apart.reported_cost is not None and apart.reported_cost < 0:
        raise AssertionError(f"{kind.reader.__name__}: expected a cost of at least 0, found {apart.reported_cost}")
    if taken > 0.5 + SECONDS_PER_MEGABYTE * (len(data) + len(sent or b"")) / 1e6:
        raise AssertionError(f"{kind.reader.__name__}: {len(data)} bytes took {taken:.2f} s; is it linear?")
