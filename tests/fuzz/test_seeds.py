"""What fuzzing starts from, and what it has found, read by every reader."""

import pytest

from tests.fuzz.harness import KINDS, check, seeds


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.reader.wire_format} {kind.path}")
def test_every_seed_is_survived_by_every_reader(kind: object) -> None:
    kept = seeds()
    assert len(kept) >= 30
    for at, seed in enumerate(kept):
        check(kind, kept[at - 1], seed, [1, 2, 7, len(seed) // 2], 200, at % 2 == 0)  # type: ignore[arg-type]
