"""The price book: dated rates of models, and which of them hold for one call.

A model has rates in order; each has conditions (from a date on, at some hours, in a service tier, above an input size)
and a price per meter. The ones whose conditions hold are laid over each other, later over earlier, meter by meter; a
rate that `replaces` starts afresh. Amounts are USD per single unit (one token, one request), exact Decimals. A book is
immutable; a new snapshot of prices makes a new book. Never here: fetching, reading files, a clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol


class Meter(StrEnum):
    """What is priced."""

    INPUT = "input"
    OUTPUT = "output"
    CACHE_READ = "cache_read"
    CACHE_WRITE = "cache_write"
    CACHE_WRITE_1H = "cache_write_1h"
    REASONING = "reasoning"
    INPUT_AUDIO = "input_audio"
    OUTPUT_AUDIO = "output_audio"
    INPUT_IMAGE = "input_image"
    OUTPUT_IMAGE = "output_image"
    REQUEST = "request"
    WEB_SEARCH = "web_search"


Price = Decimal | tuple[tuple[int, Decimal], ...]
"""One price, or steps (above so many input tokens, price), ascending, the first above -1: the step reprices all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Prices and the conditions under which they hold; a condition left out always holds."""

    prices: Mapping[Meter, Price]
    effective_from: date | None = None
    """The first UTC day on which the rate holds."""
    hours: tuple[time, time] | None = None
    """UTC, half-open; may wrap around midnight."""
    days: frozenset[int] | None = None
    """Weekdays, Monday 0, UTC, of the day the window began on."""
    tier: str | None = None
    """The service tier it is for."""
    above_input_tokens: int | None = None
    """Only for a call with strictly more input tokens."""
    replaces: bool = False
    """Whether earlier rates are dropped when this one holds, instead of being kept where it says nothing."""

    def holds(self, at: datetime, tier: str | None, input_tokens: int) -> bool:
        """Whether every condition is met. `at` is UTC."""
        if self.tier is not None and self.tier != tier:
            return False
        if self.effective_from is not None and at.date() < self.effective_from:
            return False
        if self.above_input_tokens is not None and input_tokens <= self.above_input_tokens:
            return False
        return (self.hours is None and self.days is None) or self._in_window(at)

    def _in_window(self, at: datetime) -> bool:
        now, weekday = at.time(), at.weekday()
        if self.hours is not None:
            start, end = self.hours
            if start <= end:
                if not start <= now < end:
                    return False
            elif now < end:
                weekday = (weekday - 1) % 7
            elif now < start:
                return False
        return self.days is None or weekday in self.days


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model's rates, as one source states them."""

    name: str
    rates: Sequence[Rate]
    """Those of a service tier last: they lie over the plain ones."""
    version: str
    """The snapshot the rates come from; kept with every call valued by them."""
    discount: Decimal = Decimal(0)
    """Taken off every price: 0.1 is ten per cent."""

    def prices(
        self, at: datetime, *, tier: str | None = None, input_tokens: int = 0, by_hour: bool = True
    ) -> dict[Meter, Decimal] | None:
        """The prices that hold at a time; None when there are none, or a tier with prices of its own has none here.

        by_hour False: rates of some hours or days only are left out.
        """
        found: dict[Meter, Price] = {}
        tier_met = False
        for rate in self.rates:
            if not by_hour and (rate.hours is not None or rate.days is not None):
                continue
            if rate.holds(at, tier, input_tokens):
                if rate.replaces:
                    found = dict(rate.prices)
                else:
                    found.update(rate.prices)
                tier_met = tier_met or rate.tier is not None
        if not found or (tier in DEARER_OR_CHEAPER and not tier_met):
            return None
        return {meter: self._price(price, input_tokens) for meter, price in found.items()}

    @property
    def has_hours(self) -> bool:
        """Whether some rate holds at certain hours or days only."""
        return any(rate.hours is not None or rate.days is not None for rate in self.rates)

    def _price(self, price: Price, input_tokens: int) -> Decimal:
        if isinstance(price, tuple):
            price = next(amount for above, amount in reversed(price) if input_tokens > above)
        return price * (1 - self.discount) if self.discount else price


DEARER_OR_CHEAPER = frozenset({"flex", "priority", "batch", "fast", "ultrafast"})
"""Service tiers that have prices of their own wherever they exist: without those, what a call cost is not known."""


class Catalogue(Protocol):
    """One provider's models."""

    def find(self, model: str) -> Model | None:
        """The model by any name it is known under, None when it is not in here."""


class Sources(Protocol):
    """Catalogues by provider, loaded when asked for."""

    def catalogue(self, provider_name: str) -> Catalogue | None:
        """The provider's catalogue, None when there is none."""


@dataclass(frozen=True, slots=True)
class ByName:
    """A catalogue held as a table of names."""

    models: Mapping[str, Model]

    def find(self, model: str) -> Model | None:
        return self.models.get(model)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices known, by provider. Later snapshots stand before earlier ones.

    dated: (provider, first moment, catalogue) by time; the latest that had begun when a call started values it, the
    earliest one a call before all of them.
    """

    packaged: Sources | None = None
    dated: Mapping[str, tuple[tuple[datetime, Catalogue], ...]] = field(default_factory=lambda: MappingProxyType({}))
    endpoints: Mapping[tuple[str, str], Model] = field(default_factory=lambda: MappingProxyType({}))
    """(model, serving provider) -> the rates of the endpoint, behind a gateway."""

    def find(self, provider_name: str, model: str, at: datetime) -> Model | None:
        """The model's rates as known for a call at that time."""
        snapshots = self.dated.get(provider_name, ())
        if snapshots:
            begun = [catalogue for start, catalogue in snapshots if start <= at]
            found = (begun[-1] if begun else snapshots[0][1]).find(model)
            if found is not None:
                return found
        catalogue = self.packaged.catalogue(provider_name) if self.packaged is not None else None
        return catalogue.find(model) if catalogue is not None else None

    def endpoint(self, model: str, serving_provider: str) -> Model | None:
        """The rates of one endpoint of a gateway's model."""
        return self.endpoints.get((model, serving_provider.lower()))

    def with_catalogue(self, provider_name: str, catalogue: Catalogue, *, effective_from: datetime) -> "PriceBook":
        """This book and one more snapshot of a provider's prices, holding from a moment (aware UTC) on."""
        if effective_from.utcoffset() is None:
            raise ValueError(f"a price snapshot needs an aware time, got {effective_from!r}")
        snapshots = [*self.dated.get(provider_name, ()), (effective_from, catalogue)]
        snapshots.sort(key=lambda one: one[0])
        return replace(self, dated=MappingProxyType({**self.dated, provider_name: tuple(snapshots)}))

    def with_openrouter_models(
        self, document: Mapping[str, object], *, effective_from: datetime, version: str
    ) -> "PriceBook":
        """This book and one snapshot of OpenRouter's GET /models, holding from a moment on.

        Raises ReadError when the document is no list of models.
        """
        from spendwatch.prices import openrouter

        catalogue = openrouter.read_models(document, version=version)
        return self.with_catalogue(openrouter.PROVIDER, catalogue, effective_from=effective_from)

    def with_openrouter_endpoints(self, documents: Iterable[Mapping[str, object]], *, version: str) -> "PriceBook":
        """This book and the endpoints of some models, each from OpenRouter's GET /models/{author}/{slug}/endpoints.

        Raises ReadError when a document is no model with endpoints.
        """
        from spendwatch.prices import openrouter

        found = dict(self.endpoints)
        for document in documents:
            found.update(openrouter.read_endpoints(document, version=version))
        return replace(self, endpoints=MappingProxyType(found))
