"""Tokens out of many ways of counting."""

import math

import pytest

from collectors.otlp.usage import Counts, count, usage


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (7, 7), (0, 0), ("7", 7), (7.0, 7), ("7.0", 7), (-1, None), ("-1", None), (math.nan, None), ("NaN", None),
        (math.inf, None), (True, None), (7.5, None), ("seven", None), (None, None), (2**32, None), ("9" * 30, None),
        ([7], None),
    ],
)  # fmt: skip
def test_a_count_is_read_from_whatever_senders_write(said: object, meant: int | None) -> None:
    assert count(said) == meant


# (input, output, total, cache read, cache write, reasoning), provider, the dialect's habit
# -> (input, output) with all parts in them, how it was decided
CASES = {
    "no cache, nothing to decide": ((100, 20, None, None, None, None), "anthropic", None, (100, 20), None),
    "total tells that the cache is inside": (
        (100, 20, 120, 60, 10, None),
        "anthropic",
        None,
        (100, 20),
        "inclusive: total",
    ),
    "total tells that the cache is beside": ((30, 20, 120, 20, 50, None), "openai", True, (100, 20), "additive: total"),
    "total tells despite reasoning beside": ((30, 20, 130, 70, None, 10), "openai", True, (100, 30), "additive: total"),
    "more cached than input": (
        (5, 20, None, 90, None, None),
        "openai",
        True,
        (95, 20),
        "additive: more cached than input",
    ),
    "the dialect says inside": ((100, 20, None, 60, None, None), "anthropic", True, (100, 20), "inclusive: dialect"),
    "the dialect says beside": ((100, 20, None, 60, None, None), "openai", False, (160, 20), "additive: dialect"),
    "anthropic counts beside": ((100, 20, None, 60, None, None), "anthropic", None, (160, 20), "additive: provider"),
    "bedrock counts beside": ((100, 20, None, 60, 5, None), "aws.bedrock", None, (165, 20), "additive: provider"),
    "openai counts inside": ((100, 20, None, 60, None, None), "openai", None, (100, 20), "inclusive: provider"),
    "reasoning is in the output": ((100, 20, None, None, None, 15), "openai", None, (100, 20), None),
    "reasoning larger than output": ((100, 20, None, None, None, 50), "x_ai", None, (100, 70), None),
    "total tells reasoning beside": ((100, 20, 135, None, None, 15), "gcp.gemini", None, (100, 35), None),
    "unknown stays unknown": ((None, None, None, 60, None, 10), "openai", None, (None, None), None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_totals_include_their_parts(case: str) -> None:
    (given, output, total, read, write, reasoning), provider, dialect, expected, decided = CASES[case]
    counts = Counts(input=given, output=output, total=total, cache_read=read, cache_write=write, reasoning=reasoning)
    tokens, semantics = usage(counts, provider=provider, includes_cache=dialect)
    assert (tokens.input_tokens, tokens.output_tokens) == expected
    assert semantics == decided
    assert (tokens.cache_read_input_tokens, tokens.cache_write_input_tokens) == (read, write)
    assert tokens.reasoning_output_tokens == reasoning
