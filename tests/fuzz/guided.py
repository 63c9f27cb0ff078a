"""Fuzzing guided by coverage (atheris): `python -m tests.fuzz.guided READER SECONDS`, a process for each reader.

The first byte of an input says which of the reader's paths is taken, the status, and whether the rest is the reply or
the request; a mutator of our own changes JSON as JSON, or else nothing would get past its parser. Exit status 77 and
a file under `found` in the folder named by the environment say that a promise was broken.
"""

import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["spendwatch.wire", "spendwatch.fingerprint", "spendwatch.money"]):
    from tests.fuzz.drawn import NAMES
    from tests.fuzz.harness import check, readers, seeds

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 1.5, 12.0, 2**53, 10**30, -(10**30), 1e300, float("nan"), float("inf"), "", "a",
    "null", "1e999", 111222333, "-1", "\ud800", "\0", "data: [DONE]", "é" * 40, [], {}, [[]], [{}], [None], {"a": {}},
    ["a", 1], "x" * 3000,
)  # fmt: skip
_NUMBERS = (
    b"1e99999999999999999999",
    b"1e-99999999999999999999",
    b"1e999999999",
    b"1e-999999999",
    b"0e9",
    b"-0.0",
    b"9" * 400,
)
"""What no value of Python writes as."""
_STATUS = (200, 200, 200, 429)
_REPLY = b'{"id": "r", "usage": {}}'


def _places(value: Any, found: list[tuple[Any, Any]], depth: int = 0) -> None:
    """Every place in a JSON value where something stands: (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        if depth < 40 and len(found) < 2000:
            _places(inner, found, depth + 1)


def _mutate_value(value: Any, by: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []
    _places(value, places)
    if not places:
        return by.choice(_VALUES)
    for _ in range(by.randint(1, 3)):
        holder, key = by.choice(places)
        other, other_key = by.choice(places)
        try:
            match by.randint(0, 5):
                case 0 | 1:
                    holder[key] = by.choice(_VALUES)
                case 2:
                    holder[key] = json.loads(json.dumps(other[other_key]))
                case 3 if isinstance(holder, dict):
                    holder[by.choice(NAMES)] = holder.pop(key)
                case 4 if isinstance(holder, list):
                    holder.insert(key, holder[key])
                case 5 if isinstance(holder, dict):
                    holder[by.choice(NAMES)] = by.choice(_VALUES)
                case _:
                    del holder[key]
        except (KeyError, IndexError, ValueError, RecursionError):
            continue
    return value


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input near this one."""
    by = random.Random(seed)
    control, body = data[:1] or b"\0", data[1:]
    if by.random() < 0.15:
        control = bytes([by.randrange(256)])
    if by.random() < 0.7:
        lines = body.split(b"\n")
        place = by.randrange(len(lines))
        marked = lines[place].startswith(b"data:")
        text = body if body[:1] in (b"{", b"[") and b"\n{" not in body else lines[place][5 if marked else 0 :]
        try:
            said = json.dumps(_mutate_value(json.loads(text), by)).encode()
            said = said.replace(b"111222333", by.choice(_NUMBERS))
        except (ValueError, RecursionError):
            said = None
        if said is not None:
            if text is body:
                body = said
            else:
                lines[place] = (b"data: " if marked else b"") + said
                if by.random() < 0.2:
                    lines[place:place] = lines[max(place - 3, 0) : place + 1]
                body = b"\n".join(lines)
            return (control + body)[:max_size]
    return control + bytes(atheris.Mutate(body, max(max_size - 1, 1)))


def main() -> None:
    """Fuzz until the time is over; never returns."""
    name, seconds = sys.argv[1], int(float(sys.argv[2]))
    kinds = readers()[name]
    asked = [None, *(seed for seed in seeds() if seed.startswith(b"{"))]

    def one(data: bytes) -> None:
        control, rest = (data[0], data[1:]) if data else (0, b"")
        kind = kinds[control % len(kinds)]
        by = random.Random(len(rest) * 257 + control)
        cuts = [by.randrange(len(rest) + 1) for _ in range(control % 5)]
        status = _STATUS[control // 4 % 4]
        if control < 200:
            check(kind, by.choice(asked), rest, cuts, status, control % 2 == 0)
        else:
            check(kind, rest, _REPLY, cuts, status, control % 2 == 0)

    with tempfile.TemporaryDirectory() as folder:
        for at, seed in enumerate(seeds()):
            for control in (0, 1, 200):
                (Path(folder) / f"{at}-{control}").write_bytes(bytes([control]) + seed)
        found = os.environ.get("SPENDWATCH_FUZZ_FOUND", folder) + "/found-"
        options = [f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={found}", "-print_final_stats=1"]
        atheris.Setup(
            [sys.argv[0], *options, "-rss_limit_mb=2048", "-timeout=20", folder], one, custom_mutator=_mutator
        )
        atheris.Fuzz()


def _mutator(data: bytes, max_size: int, seed: int) -> bytes:
    return mutate(data, max_size, seed)


if __name__ == "__main__":
    main()
