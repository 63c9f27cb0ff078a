"""Token counts while a reply is read: one mutable tally, and the OpenAI-shaped usage object that most providers send.

Totals include their parts (input: cache reads and writes; output: reasoning). A provider that leaves a part out of its
total is found by its own arithmetic, never by its name, so that the next one of the kind is read right as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from spendwatch import money
from spendwatch.calls import TokenUsage
from spendwatch.draft import loose
from spendwatch.wire.jsonread import MAX_COUNT, count, mapping

XAI_TICK_EXPONENT = 10
"""xAI reports cost in ticks, 10^10 to the dollar: docs.x.ai, "Cost tracking"."""


@dataclass(slots=True)
class Tally:
    """The counts of a TokenUsage, plus what a usage object says beside them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_image_tokens: int | None = None
    cache_write_5m_input_tokens: int | None = None
    cost: Decimal | None = None
    upstream_cost: Decimal | None = None
    is_byok: bool | None = None
    service_tier: str | None = None

    def usage(self) -> TokenUsage:
        """The counts alone."""
        made = _LooseUsage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=self.total_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens,
            cache_write_1h_input_tokens=self.cache_write_1h_input_tokens,
            reasoning_output_tokens=self.reasoning_output_tokens,
            input_audio_tokens=self.input_audio_tokens,
            output_audio_tokens=self.output_audio_tokens,
            input_image_tokens=self.input_image_tokens,
            output_image_tokens=self.output_image_tokens,
        )
        made.__class__ = TokenUsage
        return cast(TokenUsage, made)


_LooseUsage = loose(TokenUsage)


def first_count(*values: object) -> int | None:
    """The first of the values that is a token count."""
    for value in values:
        if value is not None:
            number = count(value)
            if number is not None:
                return number
    return None


_TOP, _IN, _OUT = range(3)
"""The object itself, its details of the input, its details of the output."""
_IN_NAMES = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "prompt_token_details")
_OUT_NAMES = ("completion_tokens_details", "output_tokens_details", "output_token_details")
# Where a count may stand, the better place first.
_PLACES: dict[str, tuple[tuple[int, str], ...]] = {
    "input_tokens": ((_TOP, "prompt_tokens"), (_TOP, "input_tokens")),
    "output_tokens": ((_TOP, "completion_tokens"), (_TOP, "output_tokens")),
    "total_tokens": ((_TOP, "total_tokens"),),
    "cache_read_input_tokens": (
        (_IN, "cached_tokens"),
        (_TOP, "prompt_cache_hit_tokens"),
        (_TOP, "cache_read_input_tokens"),
        (_TOP, "cached_tokens"),
        (_TOP, "num_cached_tokens"),
    ),
    "cache_write_input_tokens": (
        (_IN, "cache_write_tokens"),
        (_IN, "cache_creation_input_tokens"),
        (_IN, "cache_creation_tokens"),
        (_TOP, "cache_creation_input_tokens"),
        (_TOP, "cache_write_tokens"),
    ),
    "reasoning_output_tokens": ((_OUT, "reasoning_tokens"), (_TOP, "reasoning_tokens")),
    "input_audio_tokens": ((_IN, "audio_tokens"),),
    "input_image_tokens": ((_IN, "image_tokens"),),
    "output_audio_tokens": ((_OUT, "audio_tokens"),),
    "output_image_tokens": ((_OUT, "image_tokens"),),
}
_COSTS = frozenset({"cost", "cost_in_usd_ticks", "pydantic_ai_gateway", "cost_details", "is_byok"})
_MAX_SHAPES = 256


def read_openai(usage: Mapping[str, Any]) -> Tally:
    """An OpenAI-shaped usage object: chat, completions, responses, embeddings, images, transcriptions, rerank."""
    details_in = mapping(next(filter(None, map(usage.get, _IN_NAMES)), None))
    details_out = mapping(next(filter(None, map(usage.get, _OUT_NAMES)), None))
    tally = _of_known_shape(usage, details_in, details_out)
    if tally is None:
        groups = (usage, details_in, details_out)
        tally = Tally()
        for name, places in _PLACES.items():
            setattr(tally, name, first_count(*[groups[group].get(place) for group, place in places]))
        _lifetimes(usage, details_in, tally)
        if tally.input_audio_tokens is None and usage.get("prompt_audio_seconds"):
            _hear(tally)
    _balance(tally)
    if not _COSTS.isdisjoint(usage):
        read_cost(usage, tally)
    tier = usage.get("service_tier")
    tally.service_tier = tier if isinstance(tier, str) else None
    return tally


_Shape = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_shapes: dict[_Shape, tuple[tuple[str, ...], tuple[tuple[int, str], ...]]] = {}
"""The members of a usage object -> the counts it has, and where each stands."""
_INTEGERS = {int}


def _of_known_shape(usage: Mapping[str, Any], details_in: dict[str, Any], details_out: dict[str, Any]) -> Tally | None:
    """The counts of an object in which every one is a plain number; None for any other.

    A provider's objects have the same members time and again: then the place of each count is known.
    """
    if "cache_creation" in usage or "cache_creation" in details_in or "prompt_audio_seconds" in usage:
        return None
    shape = (tuple(usage), tuple(details_in), tuple(details_out))
    found = _shapes.get(shape)
    if found is None:
        if len(_shapes) >= _MAX_SHAPES:
            _shapes.clear()
        there = (
            (name, [(at, place) for at, place in places if place in shape[at]]) for name, places in _PLACES.items()
        )
        first = {name: places[0] for name, places in there if places}
        found = _shapes[shape] = (tuple(first), tuple(first.values()))
    names, places = found
    groups = (usage, details_in, details_out)
    values = [groups[at][place] for at, place in places]
    if set(map(type, values)) != _INTEGERS or min(values) < 0 or max(values) >= MAX_COUNT:
        return None
    return Tally(**dict(zip(names, values, strict=True)))


def read_timings(timings: Mapping[str, Any]) -> Tally:
    """llama.cpp's timings, which it states also where no usage was asked for.

    github.com/ggml-org/llama.cpp, tools/server/README.md.
    """
    cached, fresh = count(timings.get("cache_n")), count(timings.get("prompt_n"))
    if fresh is None:
        return Tally()
    return Tally(
        input_tokens=fresh + (cached or 0),
        output_tokens=count(timings.get("predicted_n")),
        cache_read_input_tokens=cached,
    )


def _lifetimes(usage: Mapping[str, Any], details: Mapping[str, Any], tally: Tally) -> None:
    lifetimes = mapping(usage.get("cache_creation") or details.get("cache_creation"))
    if lifetimes:
        tally.cache_write_5m_input_tokens = count(lifetimes.get("ephemeral_5m_input_tokens"))
        tally.cache_write_1h_input_tokens = count(lifetimes.get("ephemeral_1h_input_tokens"))
    if tally.cache_write_input_tokens is None and lifetimes:
        parts = [n for n in map(count, lifetimes.values()) if n is not None]
        tally.cache_write_input_tokens = sum(parts) if parts else None


def _hear(tally: Tally) -> None:
    """Mistral's older transcriptions state the audio in seconds, and its tokens in the grand total alone."""
    if tally.total_tokens is not None and tally.input_tokens is not None:
        heard = tally.total_tokens - tally.input_tokens - (tally.output_tokens or 0)
        tally.input_audio_tokens = heard if heard > 0 else None


def _balance(tally: Tally) -> None:
    """Put right a total that leaves out one of its parts, when the stated grand total says which."""
    total, given_in, given_out = tally.total_tokens, tally.input_tokens, tally.output_tokens
    if total is None or given_in is None:
        return
    if given_out is None:
        # Input alone makes an embedding's total; a reply that says more has the rest as its output.
        if total > given_in:
            tally.output_tokens = total - given_in
        return
    missing = total - given_in - given_out
    if missing <= 0:
        return
    if missing == tally.reasoning_output_tokens:
        # xAI's chat: completion_tokens without the reasoning.
        tally.output_tokens = given_out + missing
    elif missing == tally.input_audio_tokens:
        # Mistral: prompt_tokens without the audio.
        tally.input_tokens = given_in + missing
    elif not tally.reasoning_output_tokens and not tally.input_audio_tokens:
        # Gemini's OpenAI-shaped endpoint: thoughts only in the grand total.
        tally.output_tokens = given_out + missing


def read_cost(usage: Mapping[str, Any], tally: Tally) -> None:
    """What the usage object says was charged, in USD."""
    cost = usage.get("cost")
    if isinstance(cost, dict):
        # Perplexity itemises.
        cost = cost.get("total_cost")
    if cost is None and usage.get("cost_in_usd_ticks") is not None:
        ticks = money.parse(usage.get("cost_in_usd_ticks"))
        cost = ticks.scaleb(-XAI_TICK_EXPONENT) if ticks is not None else None
    if cost is None:
        cost = mapping(usage.get("pydantic_ai_gateway")).get("cost_estimate")
    if cost is not None:
        tally.cost = money.parse_cost(cost)
    details = usage.get("cost_details")
    if details is not None:
        tally.upstream_cost = money.parse_cost(mapping(details).get("upstream_inference_cost"))
    byok = usage.get("is_byok")
    tally.is_byok = byok if isinstance(byok, bool) else None
