"""What decides the cost of many calls that differ in their token counts alone: rates as integers.

terms() is what value() would find for a call before it looks at a count; the rates are whole parts of a dollar, so that
costs are exact without a Decimal for each. Where anything else decides (the hour of the day, audio, images) there are
no terms, and the calls are valued one by one. Never here: sums, counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext

from spendwatch import money
from spendwatch.calls import LLMCall, TokenUsage
from spendwatch.prices.book import Meter, Model, PriceBook
from spendwatch.prices.value import (
    INPUT_ONLY,
    STANDARD_TIERS,
    find_endpoint,
    find_model,
    model_names,
    searches,
    why_free,
)

PICO_DIGITS = 12
_MAX_DIGITS = 17
_MAX_RATE = 2**62
_UNPLAIN = frozenset({Meter.INPUT_AUDIO, Meter.OUTPUT_AUDIO, Meter.INPUT_IMAGE, Meter.OUTPUT_IMAGE})
_UNPLAIN_COUNTS = ("input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens")


@dataclass(frozen=True, slots=True)
class Rates:
    """What one token costs, each in 10^-digits USD; `fixed` is for the call itself."""

    digits: int
    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    reasoning: int
    fixed: int


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates of one call's layers, None where the layer is not known. routed: rates of its own, else as `list`."""

    list: Rates | None
    listed: Rates | None
    routed: Rates | None
    routed_as_list: bool
    version: str | None


@dataclass(frozen=True, slots=True)
class Terms:
    """All that decides a call's cost but its token counts and its day.

    free: why it costs nothing, which is the version of its prices. steps: numbers of input tokens beyond which other
    prices hold.
    """

    free: str | None
    steps: tuple[int, ...]
    _call: LLMCall
    _at: datetime
    _model: Model | None
    _endpoint: Model | None

    def tariff(self, input_tokens: int) -> Tariff | None:
        """The rates for calls of so many input tokens, or as many up to the next step; None when they are not plain."""
        call, model, endpoint = self._call, self._model, self._endpoint
        known = call.usage.input_tokens is not None and (
            call.usage.output_tokens is not None or call.operation_name in INPUT_ONLY
        )
        tier = None if call.service_tier in STANDARD_TIERS else call.service_tier
        try:
            with localcontext() as context:
                # As in value(): a discounted price is not rounded.
                context.prec = 60
                listing = self._rates(model, None, input_tokens) if known else None
                full = self._rates(model, tier, input_tokens) if known else None
                routed = self._rates(endpoint, None, input_tokens) if known else None
        except _UnplainError:
            return None
        return Tariff(
            list=listing,
            listed=full,
            routed=routed,
            routed_as_list=call.serving_provider is None and call.provider_name != "openrouter",
            version=model.version if model is not None else None,
        )

    def _rates(self, model: Model | None, tier: str | None, input_tokens: int) -> Rates | None:
        prices = model.prices(self._at, tier=tier, input_tokens=input_tokens) if model is not None else None
        if prices is None:
            return None
        given, output = prices.get(Meter.INPUT), prices.get(Meter.OUTPUT)
        if output is None and _has_no_output(self._call):
            output = money.ZERO
        if given is None or output is None:
            raise _UnplainError
        if any(getattr(self._call.usage, name) is not None for name in _UNPLAIN_COUNTS) and _UNPLAIN & prices.keys():
            raise _UnplainError
        written = prices.get(Meter.CACHE_WRITE, given)
        fixed = prices.get(Meter.REQUEST, money.ZERO) + searches(self._call) * prices.get(Meter.WEB_SEARCH, money.ZERO)
        return _integers(
            given,
            prices.get(Meter.CACHE_READ, given),
            written,
            prices.get(Meter.CACHE_WRITE_1H, written),
            output,
            prices.get(Meter.REASONING, output),
            fixed,
        )


class _UnplainError(Exception):
    """The prices are of a kind that Rates can't tell."""


def terms(call: LLMCall, book: PriceBook) -> Terms | None:
    """What holds for this call and for all that differ from it in token counts alone; None when nothing plain does.

    A count that this call knows the others must know too, and the other way round; they start on the same UTC day and
    under the same snapshot of prices.
    """
    names = model_names(call)
    if call.http_status is not None and call.http_status >= 400 and _any_count(call.usage):
        return None
    at = call.started_at.astimezone(UTC)
    free = why_free(call, names)
    model = find_model(book, call, names, at) if free is None else None
    endpoint = find_endpoint(book, call, names) if free is None else None
    models = [one for one in (model, endpoint) if one is not None]
    if any(one.has_hours for one in models):
        return None
    return Terms(free, tuple(sorted(set(_steps(models)))), call, at, model, endpoint)


def _has_no_output(call: LLMCall) -> bool:
    """Whether no output is counted for the call, so that it needs no price."""
    usage = call.usage
    return usage.output_tokens is None and usage.reasoning_output_tokens is None


def _any_count(usage: TokenUsage) -> bool:
    return any(count is not None for count in (usage.input_tokens, usage.output_tokens, usage.total_tokens))


def _steps(models: Iterable[Model]) -> Iterable[int]:
    for model in models:
        for rate in model.rates:
            if rate.above_input_tokens is not None:
                yield rate.above_input_tokens
            for price in rate.prices.values():
                if isinstance(price, tuple):
                    yield from (above for above, _ in price)


def _integers(*prices: Decimal) -> Rates:
    digits = max(PICO_DIGITS, *(-int(price.as_tuple().exponent) for price in prices))
    if digits > _MAX_DIGITS:
        raise _UnplainError
    whole = [int(price.scaleb(digits)) for price in prices]
    if min(whole) < 0 or max(whole) > _MAX_RATE:
        raise _UnplainError
    return Rates(digits, *whole)
