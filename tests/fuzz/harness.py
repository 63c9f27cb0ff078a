"""One fuzz case: bytes of a request and of a reply, in any pieces, through any reader. What must hold is checked here.

Invariant checked: nothing is raised, counts are whole numbers of at least 0 or None, the same bytes give the same Reply
in another split, and no input of this size takes longer than a quadratic reader would need by far.
"""

import itertools
import time
from collections.abc import Iterable
from pathlib import Path

from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply, Request, WireFormat
from spendwatch.wire.formats import _BEGUN, _CONTINUED, _INFERENCE, _KINDS, Kind

SEEDS = Path(__file__).parent / "seeds"
KEYED = Fingerprinter(b"a key of the fuzzer")
SECONDS_PER_MEGABYTE = 20.0
"""Far above what any reader needs; a quadratic one passes it with some hundred kilobytes."""

KINDS: tuple[Kind, ...] = tuple(
    {
        (kind.reader, kind.path): kind
        for kinds in (*_KINDS.values(), *_BEGUN.values(), *_CONTINUED.values(), _INFERENCE)
        for kind in kinds
    }.values()
)
"""Every way into a reader, each reader at each of its paths."""


def seeds() -> list[bytes]:
    """The replies that fuzzing starts from: recorded ones, and what earlier runs found."""
    return [path.read_bytes() for path in sorted(SEEDS.glob("*.bin"))]


def read(kind: Kind, sent: bytes | None, pieces: Iterable[bytes], status: int, complete: bool) -> Reply:
    """Read one exchange with a kind's reader."""
    path = (
        f"{kind.within or ''}m{kind.path}" if kind.path.startswith(":") else f"{kind.within.rstrip('/')}/m{kind.path}"
    )
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
    if taken > 0.5 + SECONDS_PER_MEGABYTE * (len(data) + len(sent or b"")) / 1e6:
        raise AssertionError(f"{kind.reader.__name__}: {len(data)} bytes took {taken:.2f} s; is it linear?")
