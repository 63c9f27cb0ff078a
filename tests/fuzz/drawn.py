"""Fuzzing with inputs that hypothesis draws: mutated seeds, random bytes and random JSON. It makes a failure small."""

import json
import time
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from spendwatch.wire.formats import Kind
from tests.fuzz.harness import check, keep, seeds

EXAMPLES = 40
_SEEDS = seeds()
NAMES = sorted(
    {name.decode() for seed in _SEEDS for name in seed.split(b'"')[1::2] if name.isascii() and 1 < len(name) < 30}
)
"""The members' names in the seeds."""


@st.composite
def mutated(draw: Any) -> bytes:
    """A seed with some bytes replaced, removed, repeated, or another seed's put in."""
    data = draw(st.sampled_from(_SEEDS))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            middle = draw(st.binary(max_size=20))
        elif kind == 1:
            middle = data[at:to] * draw(st.integers(0, 30))
        elif kind == 2:
            middle = draw(st.sampled_from(_SEEDS))[at:to]
        else:
            middle = draw(
                st.sampled_from(
                    [
                        b"null",
                        b"{}",
                        b"[]",
                        b'""',
                        b"-1",
                        b"1e999",
                        b"1e99999999999999999999",
                        b"1e-999999999",
                        b"NaN",
                        b"\\ud800",
                        b"\n\n",
                        b"\0",
                    ]
                )
            )
        data = data[:at] + middle + data[to:]
    return bytes(data)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)
_json = _values.map(lambda value: json.dumps(value).encode())
_events = st.lists(_json, max_size=5).map(lambda events: b"".join(b"data: " + event + b"\n\n" for event in events))


def fuzz(kinds: Sequence[Kind], seconds: float) -> int:
    """Run until the time is over; how many inputs were tried. What breaks a promise is kept, and raised."""
    tried = 0
    last: tuple[Any, ...] = ()
    until = time.monotonic() + seconds

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        st.sampled_from(kinds),
        st.none() | mutated() | _json,
        mutated() | _json | _events | st.binary(max_size=200),
        st.lists(st.integers(0, 100_000), max_size=12),
        st.sampled_from([200, 200, 200, 400, 503]),
        st.booleans(),
    )
    def one(kind: Kind, sent: Any, data: bytes, cuts: list[int], status: int, complete: bool) -> None:
        nonlocal tried, last
        tried += 1
        last = (sent, data)
        check(kind, sent, data, cuts, status, complete)

    while time.monotonic() < until:
        try:
            one()
        except BaseException:
            for part in last:
                if part:
                    print("kept", keep(part))
            raise
    return tried
