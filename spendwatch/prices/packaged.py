"""The price list that comes with the package: one TOML file per provider, read when that provider is first met.

TOML is slow to parse, and an app meets two or three models: a file's models are told apart by text, and only the one
asked for is parsed. That takes the form that `generate` writes: each model is a [[model]] table that starts with its
`match` on one line. Invariant: reading a file whole with tomllib gives the same models.
"""

import json
import re
import tomllib
from datetime import date, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from spendwatch.errors import ReadError
from spendwatch.prices.book import Meter, Model, Price, PriceBook, Rate

FILES: dict[str, str] = {
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "aws.bedrock": "aws",
}
"""Providers whose file has another name than theirs."""

DATA = Path(__file__).parent / "data"
PER_MILLION = Decimal("0.000001")
PER_THOUSAND = Decimal("0.001")
_TABLE = "[[model]]\n"
_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
_MAX_REMEMBERED = 4096


class File:
    """One provider's file."""

    def __init__(self, text: str) -> None:
        head, *tables = text.split(_TABLE)
        try:
            header = tomllib.loads(head)
            self.version = f"{header['provider']}@{header['version']}"
            self.fallback: list[str] = header.get("fallback", [])
            self._tables = [(_match_of(table), table) for table in tables]
        except (ValueError, KeyError) as error:
            raise ReadError(f"price file: expected the form that spendwatch.prices.generate writes: {error}") from error
        self._found: dict[str, Model | None] = {}

    def find(self, model: str) -> Model | None:
        """The model by any name it is known under."""
        if model in self._found:
            return self._found[model]
        found = self._find(model.lower())
        if len(self._found) < _MAX_REMEMBERED:
            self._found[model] = found
        return found

    def _find(self, name: str) -> Model | None:
        # Gateways write dates without dashes: gpt-5.2-20251211 is gpt-5.2-2025-12-11.
        for spelled in (name, _COMPACT_DATE.sub(r"-\1-\2-\3", name)):
            for match, table in self._tables:
                if matches(match, spelled):
                    return read_model(tomllib.loads(table, parse_float=Decimal), self.version)
        for provider in self.fallback:
            other = _file(provider)
            found = other._find_here(name) if other is not None else None
            if found is not None:
                return found
        return None

    def _find_here(self, name: str) -> Model | None:
        for match, table in self._tables:
            if matches(match, name):
                return read_model(tomllib.loads(table, parse_float=Decimal), self.version)
        return None


def _match_of(table: str) -> list[str]:
    """The `match` of a model's table, its first line."""
    line, _, _ = table.partition("\n")
    name, _, given = line.partition(" = ")
    if name != "match":
        raise ValueError(f"a [[model]] starts with its match, found {line[:60]!r}")
    found = json.loads(given)
    if not isinstance(found, list):
        raise ValueError(f"match is a list, found {given[:60]!r}")
    return found


def matches(clauses: list[str], name: str) -> bool:
    """Whether one clause fits a name in lower case.

    "=x": it is x. "^x": it starts with x. "$x": it ends with x. "*x": it holds x. "~x": the regex finds something.
    "a & b": both fit.
    """
    return any(all(_fits(part, name) for part in clause.split(" & ")) for clause in clauses)


def _fits(clause: str, name: str) -> bool:
    kind, text = clause[:1], clause[1:]
    if kind == "=":
        return name == text
    if kind == "^":
        return name.startswith(text)
    if kind == "$":
        return name.endswith(text)
    if kind == "*":
        return text in name
    return re.search(text, name) is not None


def read_model(table: dict[str, Any], version: str) -> Model:
    """One [[model]] table. Its prices are USD per million tokens; of requests and searches, per thousand."""
    # An appended plain rate stands after the tiers in the file; the tiers' prices lie over it all the same.
    rates = sorted((_rate(rate) for rate in table["rates"]), key=lambda rate: rate.tier is not None)
    return Model(name=table["id"], rates=tuple(rates), version=version)


def _rate(rate: dict[str, Any]) -> Rate:
    prices: dict[Meter, Price] = {}
    for meter in Meter:
        if meter.value in rate:
            unit = PER_THOUSAND if meter in (Meter.REQUEST, Meter.WEB_SEARCH) else PER_MILLION
            prices[meter] = _price(rate[meter.value], unit)
    hours = rate.get("hours")
    return Rate(
        prices=prices,
        effective_from=_date(rate.get("from")),
        hours=(time.fromisoformat(hours[0]), time.fromisoformat(hours[1])) if hours else None,
        tier=rate.get("tier"),
        replaces=rate.get("tier") is None,
    )


def _date(given: Any) -> date | None:
    return given if isinstance(given, date) else None


def _price(given: Any, unit: Decimal) -> Price:
    """A number, or [number, [above input tokens, number], ...]."""
    if not isinstance(given, list):
        return Decimal(given) * unit
    base, *steps = given
    return ((-1, Decimal(base) * unit), *((above, Decimal(amount) * unit) for above, amount in steps))


@cache
def names() -> frozenset[str]:
    """The names of the files there are."""
    return frozenset(path.stem for path in DATA.glob("*.toml"))


def _file(name: str) -> File | None:
    # A provider's name may come from anyone's span: it must never become a path of its own.
    return _read(name) if name in names() else None


@cache
def _read(name: str) -> File:
    return File((DATA / f"{name}.toml").read_text(encoding="utf-8"))


class Packaged:
    """The files, by provider_name."""

    def catalogue(self, provider_name: str) -> File | None:
        """The provider's file, read at the first call; None when there is none."""
        return _file(FILES.get(provider_name, provider_name))


@cache
def packaged() -> PriceBook:
    """The book of the packaged prices. Cheap: nothing is read before a provider is met."""
    return PriceBook(packaged=Packaged())
