"""Recorded provider traffic, read in any split: every figure as the provider meant it."""

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.wire import corpus

CASES = corpus.cases()


def _split(data: bytes, randomness: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = randomness.choice((1, 2, 3, 7, 50, 400, 3000, 20000))
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_every_recorded_exchange_is_read_as_expected_in_any_split(case: dict[str, Any]) -> None:
    data = corpus.body(case)
    whole = corpus.replay(case, [data])
    assert list(corpus.differences(case, whole)) == []
    for seed in range(4):
        assert corpus.replay(case, _split(data, random.Random(f"{case['id']} {seed}"))) == whole
    if sizes := case.get("chunk_sizes"):
        edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        pieces = [data[a:b] for a, b in pairwise(edges)]
        assert corpus.replay(case, [*pieces, data[edges[-1] :]]) == whole
    if len(data) < 20_000:
        assert corpus.replay(case, (data[i : i + 1] for i in range(len(data)))) == whole


def test_the_corpus_is_whole() -> None:
    assert len(CASES) == 584
    providers = {case["provider"] for case in CASES if case["wire_format"] == "openai.chat"}
    assert len(providers) >= 30


def test_an_exchange_that_is_no_inference_is_never_reported_as_one() -> None:
    others = [case for case in CASES if not case["expected"]["is_inference"]]
    assert others
    for case in others:
        reply = corpus.replay(case, [corpus.body(case)])
        assert reply is None or not reply.is_inference
