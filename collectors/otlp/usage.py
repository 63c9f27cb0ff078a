"""One count of tokens out of many ways of counting: totals that include their parts.

Instrumentations differ in whether input tokens hold the cached ones and output tokens the reasoning; the decision is
taken from the figures where they tell, else from the dialect, else from the provider, and is kept beside the call, so
that it can be questioned. Never here: attribute names, prices.
"""

from dataclasses import dataclass

from collectors.otlp.providers import ADDITIVE_INPUT
from spendwatch.calls import TokenUsage

MAX_TOKENS = 2**32 - 1
"""More than any model takes: a larger number is not a count of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the span says, before anything is made of it. None: not said."""

    input: int | None
    output: int | None
    total: int | None
    cache_read: int | None
    cache_write: int | None
    reasoning: int | None
    cache_write_1h: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    input_image: int | None = None
    output_image: int | None = None


def count(value: object) -> int | None:
    """A count of tokens from an integer, whole float or numeric string; None for what is none (-1, NaN, True)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 20 else None
        except ValueError:
            return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) and 0 <= value <= MAX_TOKENS else None


def usage(
    counts: Counts, *, provider: str, includes_cache: bool | None, includes_reasoning: bool = True
) -> tuple[TokenUsage, str | None]:
    """The call's tokens by semconv's meaning, and how the input was understood ("inclusive: total", "additive:
    provider", ...; None when there is no cache to be in or beside it).

    includes_cache, includes_reasoning: the sender's habit, where the figures don't tell. None: as the provider counts.
    """
    cached = (counts.cache_read or 0) + (counts.cache_write or 0)
    given, output = counts.input, counts.output
    semantics: str | None = None
    if given is not None and cached:
        inclusive, why = _input_includes_cache(counts, given, cached, provider, includes_cache)
        semantics = f"{'inclusive' if inclusive else 'additive'}: {why}"
        if not inclusive:
            given += cached
    if (
        output is not None
        and counts.reasoning
        and not _output_includes_reasoning(counts, given, output, includes_reasoning)
    ):
        output += counts.reasoning
    tokens = TokenUsage(
        input_tokens=given,
        output_tokens=output,
        total_tokens=counts.total,
        cache_read_input_tokens=counts.cache_read,
        cache_write_input_tokens=counts.cache_write,
        cache_write_1h_input_tokens=counts.cache_write_1h,
        reasoning_output_tokens=counts.reasoning,
        input_audio_tokens=counts.input_audio,
        output_audio_tokens=counts.output_audio,
        input_image_tokens=counts.input_image,
        output_image_tokens=counts.output_image,
    )
    return tokens, semantics


def _input_includes_cache(
    counts: Counts, given: int, cached: int, provider: str, dialect: bool | None
) -> tuple[bool, str]:
    if counts.total is not None:
        outputs = {counts.output or 0, (counts.output or 0) + (counts.reasoning or 0)}
        if counts.total - given in outputs:
            return True, "total"
        if counts.total - given - cached in outputs:
            return False, "total"
    if cached > given:
        return False, "more cached than input"
    if dialect is not None:
        return dialect, "dialect"
    return provider not in ADDITIVE_INPUT, "provider"


def _output_includes_reasoning(counts: Counts, given: int | None, output: int, dialect: bool) -> bool:
    """Google's and xAI's raw figures count reasoning beside the output; what is larger than it can't be in it."""
    reasoning = counts.reasoning or 0
    if reasoning > output:
        return False
    if counts.total is not None and given is not None:
        if counts.total == given + output + reasoning:
            return False
        if counts.total == given + output:
            return True
    return dialect
