"""Reading OpenRouter's documents: /activity, /credits, /keys, /models and /generation. Pure.

Amounts are exact: JSON numbers are read as decimals and kept to a pico-dollar. Fields that may be missing, null or
text are taken as such; a document without what its format promises raises ReadError, and nothing of it is used.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

from spendwatch import money
from spendwatch.errors import ReadError

T = TypeVar("T")
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRow:
    """What was billed on a UTC day for a model at an endpoint. Token counts are the provider's own."""

    day: date
    model: str
    model_permaslug: str
    endpoint_id: str
    provider_name: str
    usage: Decimal
    byok_usage: Decimal
    requests: int
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Lifetime USD bought and used."""

    purchased: Decimal
    used: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A listed API key. used_today: USD of credits since 00:00 UTC."""

    hash: str
    name: str
    disabled: bool
    used_today: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation as it was billed. usage: USD of credits; upstream: USD the provider charges directly (BYOK)."""

    id: str
    model: str | None
    provider_name: str | None
    is_byok: bool
    usage: Decimal
    upstream: Decimal | None
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cancelled: bool

    @property
    def cost(self) -> Decimal:
        """What it cost altogether. `upstream` is owed on top only when a key of one's own served it."""
        return self.usage + (self.upstream or ZERO) if self.is_byok else self.usage


def read_activity(document: str) -> list[ActivityRow]:
    """The rows of GET /activity. Raises ReadError."""
    return [_activity_row(row) for row in _rows(document, "/activity")]


def read_credits(document: str) -> Credits:
    """GET /credits. Raises ReadError."""
    data = _object(document, "/credits")
    return Credits(purchased=_usd(data, "total_credits", "/credits"), used=_usd(data, "total_usage", "/credits"))


def read_keys(document: str) -> list[Key]:
    """One page of GET /keys. Raises ReadError."""
    return [
        Key(
            hash=_text(row, "hash", "/keys"),
            name=str(row.get("name") or row.get("label") or ""),
            disabled=row.get("disabled") is True,
            used_today=money.quantize(money.parse(row.get("usage_daily")) or ZERO),
        )
        for row in _rows(document, "/keys")
    ]


def check_models(document: str) -> int:
    """How many models GET /models lists. Raises ReadError for a document that no price can be read from."""
    rows = _rows(document, "/models")
    for row in rows:
        _text(row, "id", "/models")
    return len(rows)


def check_endpoints(document: str) -> int:
    """How many endpoints GET /models/{author}/{slug}/endpoints lists. Raises ReadError for anything else."""
    place = "/endpoints"
    return len(
        _expect(_object(document, place), "endpoints", place, lambda value: value if isinstance(value, list) else None)
    )


def read_generation(document: str) -> Generation:
    """GET /generation?id=. Raises ReadError.

    `usage` is what left the credits; `total_cost` is not read, since whether it holds the upstream part is not stated.
    The native counts are the billed ones.
    """
    place = "/generation"
    data = _object(document, place)
    return Generation(
        id=_text(data, "id", place),
        model=_optional_text(data, "model"),
        provider_name=_optional_text(data, "provider_name"),
        is_byok=data.get("is_byok") is True,
        usage=_usd(data, "usage", place),
        upstream=_optional_usd(data.get("upstream_inference_cost")),
        input_tokens=_optional_count(data.get("native_tokens_prompt")),
        output_tokens=_optional_count(data.get("native_tokens_completion")),
        reasoning_tokens=_optional_count(data.get("native_tokens_reasoning")),
        cached_tokens=_optional_count(data.get("native_tokens_cached")),
        cancelled=data.get("cancelled") is True,
    )


def _activity_row(row: Mapping[str, Any]) -> ActivityRow:
    place = "/activity"
    # Seen as 2026-11-20, as "2026-11-20 00:00:00" and with a T.
    day = _expect(row, "date", place, lambda value: date.fromisoformat(value[:10]))
    model = _text(row, "model", place)
    return ActivityRow(
        day=day,
        model=model,
        model_permaslug=_optional_text(row, "model_permaslug") or model,
        endpoint_id=_optional_text(row, "endpoint_id") or "",
        provider_name=_optional_text(row, "provider_name") or "",
        usage=_usd(row, "usage", place),
        byok_usage=_optional_usd(row.get("byok_usage_inference")) or ZERO,
        requests=_count(row, "requests", place),
        input_tokens=_count(row, "prompt_tokens", place),
        output_tokens=_count(row, "completion_tokens", place),
        reasoning_tokens=_optional_count(row.get("reasoning_tokens")) or 0,
        cached_tokens=_optional_count(row.get("cached_tokens")),
    )


def _load(document: str, place: str) -> Any:
    try:
        loaded = json.loads(document, parse_float=Decimal)
    except ValueError as error:
        raise ReadError(f"openrouter {place}: expected JSON, found {document[:80]!r} ({error})") from error
    if not isinstance(loaded, dict) or "data" not in loaded:
        raise ReadError(f'openrouter {place}: expected an object with "data", found {document[:80]!r}')
    return loaded["data"]


def _rows(document: str, place: str) -> list[dict[str, Any]]:
    data = _load(document, place)
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ReadError(f'openrouter {place}: expected a list of objects in "data", found {type(data).__name__}')
    return data


def _object(document: str, place: str) -> dict[str, Any]:
    data = _load(document, place)
    if not isinstance(data, dict):
        raise ReadError(f'openrouter {place}: expected an object in "data", found {type(data).__name__}')
    return data


def _expect(row: Mapping[str, Any], name: str, place: str, read: Callable[[Any], T | None]) -> T:
    value = row.get(name)
    try:
        found = read(value)
    except (ValueError, TypeError, ArithmeticError):
        found = None
    if found is None:
        raise ReadError(f"openrouter {place}: {name} can't be read, found {value!r}. Nothing of the document was used.")
    return found


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    return _expect(row, name, place, lambda value: value if isinstance(value, str) and value else None)


def _usd(row: Mapping[str, Any], name: str, place: str) -> Decimal:
    return _expect(row, name, place, _optional_usd)


def _count(row: Mapping[str, Any], name: str, place: str) -> int:
    return _expect(row, name, place, _optional_count)


def _optional_text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) and value else None


def _optional_usd(value: Any) -> Decimal | None:
    amount = money.parse(value)
    return None if amount is None else money.quantize(amount)


def _optional_count(value: Any) -> int | None:
    amount = money.parse(value)
    return int(amount) if amount is not None and amount >= 0 and amount == int(amount) else None
