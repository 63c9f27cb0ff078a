"""OpenRouter's own price documents as a catalogue: GET /models, and GET /models/{author}/{slug}/endpoints.

Prices are decimal strings in USD per unit. A negative one stands for "depends" (the routers among the models) and
counts as not known. Overrides hold under conditions, the later winning key by key; a discount is taken off what is
left. Source: openrouter.ai, "Models" and "Endpoints" of the API reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from typing import Any

from spendwatch import money
from spendwatch.errors import ReadError
from spendwatch.prices.book import Meter, Model, Rate

PROVIDER = "openrouter"

_METERS: dict[str, Meter] = {
    "prompt": Meter.INPUT,
    "completion": Meter.OUTPUT,
    "input_cache_read": Meter.CACHE_READ,
    "input_cache_write": Meter.CACHE_WRITE,
    "input_cache_write_1h": Meter.CACHE_WRITE_1H,
    "internal_reasoning": Meter.REASONING,
    "request": Meter.REQUEST,
    "image_token": Meter.INPUT_IMAGE,
    "audio": Meter.INPUT_AUDIO,
    "audio_output": Meter.OUTPUT_AUDIO,
    "web_search": Meter.WEB_SEARCH,
}
# Zero here means that the meter isn't charged apart, not that it is free: reasoning is then output, and so on.
_ZERO_IS_ABSENT = frozenset(_METERS.values()) - {Meter.INPUT, Meter.OUTPUT, Meter.REQUEST}

VARIANTS = (":nitro", ":floor", ":exacto", ":online", ":free", ":extended", ":thinking", ":batch")
"""Suffixes of a model's name that choose how it is served; others (":7b") belong to the name."""

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, slots=True)
class Models:
    """OpenRouter's models by slug, permanent slug and alias."""

    by_name: Mapping[str, Model]

    def find(self, model: str) -> Model | None:
        name = model
        while True:
            found = self.by_name.get(name)
            if found is not None:
                return found
            for suffix in VARIANTS:
                if name.endswith(suffix):
                    name = name.removesuffix(suffix)
                    break
            else:
                return None


def read_models(document: Mapping[str, object], *, version: str) -> Models:
    """The catalogue of one GET /models document, less the models without prices. Raises ReadError when it is none."""
    rows = document.get("data")
    if not isinstance(rows, list):
        raise ReadError(f'OpenRouter /models: expected {{"data": [...]}}, found {_kind(rows)} under "data"')
    by_name: dict[str, Model] = {}
    aliases: dict[str, str] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            continue
        name = row["id"]
        if isinstance(row.get("alias_target"), str):
            aliases[name] = row["alias_target"]
        model = _model(name, row.get("pricing"), version)
        if model is None:
            continue
        by_name[name] = model
        slug = row.get("canonical_slug")
        if isinstance(slug, str):
            by_name.setdefault(slug, model)
    for alias, target in aliases.items():
        if target in by_name:
            by_name[alias] = by_name[target]
    return Models(by_name)


def read_endpoints(document: Mapping[str, object], *, version: str) -> dict[tuple[str, str], Model]:
    """(model, serving provider in lower case) -> rates, of one endpoints document. Raises ReadError when it is none."""
    data = document.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("endpoints"), list):
        raise ReadError(f'OpenRouter endpoints: expected {{"data": {{"endpoints": [...]}}}}, found {_kind(data)}')
    found: dict[tuple[str, str], Model] = {}
    for row in data["endpoints"]:
        if not isinstance(row, dict) or not isinstance(row.get("provider_name"), str):
            continue
        names = {name for name in (data.get("id"), row.get("model_id")) if isinstance(name, str)}
        for name in names:
            model = _model(name, row.get("pricing"), version)
            if model is None:
                continue
            key = (name, row["provider_name"].lower())
            # A provider may have an endpoint for each service tier; the plain one is the list price.
            if key not in found or row.get("service_tier") in (None, "default"):
                found[key] = model
    return found


def _model(name: str, pricing: Any, version: str) -> Model | None:
    if not isinstance(pricing, dict):
        return None
    base = _prices(pricing)
    if base is None or Meter.INPUT not in base or Meter.OUTPUT not in base:
        return None
    rates = [Rate(prices=base)]
    overrides = pricing.get("overrides")
    for override in overrides if isinstance(overrides, list) else []:
        rate = _override(override)
        if rate is not None:
            rates.append(rate)
    discount = money.parse(pricing.get("discount"))
    if discount is None or not 0 <= discount <= 1:
        discount = money.ZERO
    return Model(name=name, rates=tuple(rates), version=version, discount=discount)


def _prices(pricing: Mapping[str, Any]) -> dict[Meter, Decimal] | None:
    """The priced meters; None when a price that every call needs is not known."""
    found: dict[Meter, Decimal] = {}
    for name, meter in _METERS.items():
        amount = money.parse(pricing.get(name))
        if amount is None or (amount == 0 and meter in _ZERO_IS_ABSENT and meter is not Meter.CACHE_READ):
            continue
        if amount < 0:
            if meter in (Meter.INPUT, Meter.OUTPUT):
                return None
            continue
        found[meter] = amount
    return found


def _override(override: Any) -> Rate | None:
    if not isinstance(override, dict):
        return None
    prices = _prices(override)
    if not prices:
        return None
    above = override.get("min_prompt_tokens")
    start, end = _clock(override.get("utc_start")), _clock(override.get("utc_end"))
    names = override.get("utc_days")
    days = frozenset(
        _WEEKDAYS.index(name.lower())
        for name in (names if isinstance(names, list) else [])
        if isinstance(name, str) and name.lower() in _WEEKDAYS
    )
    return Rate(
        prices=prices,
        above_input_tokens=above if isinstance(above, int) else None,
        hours=(start, end) if start is not None and end is not None else None,
        days=days or None,
    )


def _clock(hhmm: Any) -> time | None:
    """930 is 09:30. 2400 is midnight, the day's end."""
    if isinstance(hhmm, bool) or not isinstance(hhmm, int) or not 0 <= hhmm <= 2400 or hhmm % 100 > 59:
        return None
    return time(hhmm // 100 % 24, hhmm % 100)


def _kind(value: object) -> str:
    return type(value).__name__
