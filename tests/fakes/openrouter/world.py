"""What this OpenRouter knows: its keys, every generation it served, what it bills for each.

A generation keeps two sets of figures: what its reply said, and what the statement bills. They are equal unless a
difference was planted (plants.py). With a journal file, a world that is started again remembers.
"""

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tests.fakes.openrouter import models
from tests.fakes.openrouter.tokens import Tokens

MANAGEMENT_KEY = "sk-or-v1-management"
ZERO = Decimal(0)
BYOK_FEE = Decimal("0.05")


def key_hash(secret: str) -> str:
    """SHA-256 hex of the key: what OpenRouter calls its hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Money and tokens of one generation. usage: USD from the credits. byok: USD the provider charges directly."""

    usage: Decimal
    byok: Decimal
    tokens: Tokens


class Key(msgspec.Struct, kw_only=True):
    """An inference key; its secret is not kept."""

    hash: str
    name: str
    created_at: datetime
    disabled: bool = False


class Generation(msgspec.Struct, kw_only=True):
    """One generation: who asked, who served, what the reply said, what is billed (None: nothing, not even a row)."""

    id: str
    created_at: datetime
    model: str
    permaslug: str
    endpoint_id: str
    provider_name: str
    key_hash: str
    said: Figures
    billed: Figures | None
    upstream: Decimal
    is_byok: bool = False
    streamed: bool = False
    cancelled: bool = False
    finish_reason: str | None = "stop"
    api_type: str = "completions"
    observed: bool = True
    """False when no app made it (planted)."""

    @property
    def day(self) -> date:
        """The UTC day it is billed under: the day it started."""
        return self.created_at.date()


class Rounding(msgspec.Struct, frozen=True, kw_only=True):
    """An amount added to one cell of the statement, as a provider's rounding does."""

    day: date
    model: str
    endpoint_id: str
    key_hash: str
    amount: Decimal


class World:
    """Everything this OpenRouter remembers. One event loop or one test touches it: no locks."""

    def __init__(self, *, journal: Path | None = None, include_today: bool = False) -> None:
        self.include_today = include_today
        self.purchased = Decimal(500)
        self.keys: dict[str, Key] = {}
        self.generations: dict[str, Generation] = {}
        self.roundings: list[Rounding] = []
        self.looked_up: set[str] = set()
        self.requests: list[str] = []
        """Every management request, "GET /api/v1/activity?date=…", in order."""
        self._journal = journal
        if journal is not None and journal.exists():
            for line in journal.read_bytes().splitlines():
                self._replay(line)

    def key(self, secret: str, name: str | None = None) -> Key:
        """The key of this secret, made at its first use."""
        digest = key_hash(secret)
        if digest not in self.keys:
            made = Key(hash=digest, name=name or f"key-{digest[:6]}", created_at=datetime.now(UTC))
            self.keys[digest] = made
            self.write("key", made)
        elif name is not None and self.keys[digest].name != name:
            self.keys[digest].name = name
            self.write("key", self.keys[digest])
        return self.keys[digest]

    def generate(
        self,
        *,
        model: models.Model,
        endpoint: models.Endpoint,
        key: Key,
        tokens: Tokens,
        at: datetime,
        byok: bool = False,
        observed: bool = True,
        streamed: bool = False,
        api_type: str = "completions",
    ) -> Generation:
        """Serve one: it is remembered, and billed in full, from here on."""
        price = models.cost(model, endpoint, tokens)
        figures = Figures(usage=price * BYOK_FEE if byok else price, byok=price if byok else ZERO, tokens=tokens)
        made = Generation(
            id=f"gen-{int(at.timestamp())}-{uuid.uuid4().hex[:20]}",
            created_at=at.astimezone(UTC),
            model=model.id,
            permaslug=model.canonical_slug,
            endpoint_id=endpoint.id,
            provider_name=endpoint.provider_name,
            key_hash=key.hash,
            said=figures,
            billed=figures,
            upstream=price,
            is_byok=byok,
            streamed=streamed,
            api_type=api_type,
            observed=observed,
        )
        self.keep(made)
        return made

    def keep(self, generation: Generation) -> None:
        """Remember it as it is now."""
        self.generations[generation.id] = generation
        self.write("generation", generation)

    def round(self, rounding: Rounding) -> None:
        """Add an amount to one cell of the statement."""
        self.roundings.append(rounding)
        self.write("rounding", rounding)

    def days(self) -> Iterator[date]:
        """The days /activity may speak of: the last 30 completed ones, today too when asked for."""
        today = datetime.now(UTC).date()
        for back in range(0 if self.include_today else 1, 31):
            yield today - timedelta(days=back)

    def activity(self, *, day: date | None, hash_: str | None) -> dict[str, Any]:
        """The answer of GET /activity: one row per day, model and endpoint."""
        days = set(self.days()) if day is None else {day} & set(self.days())
        return {"data": self.rows(days=days, hash_=hash_)}

    def rows(self, *, days: set[date], hash_: str | None) -> list[dict[str, Any]]:
        """The statement's rows of these days, of one key or of all."""
        rows: dict[tuple[date, str, str], dict[str, Any]] = {}
        for generation in self.generations.values():
            billed = generation.billed
            if billed is None or generation.day not in days or hash_ not in (None, generation.key_hash):
                continue
            row = rows.setdefault(
                (generation.day, generation.model, generation.endpoint_id),
                {
                    "date": generation.day.isoformat(),
                    "model": generation.model,
                    "model_permaslug": generation.permaslug,
                    "endpoint_id": generation.endpoint_id,
                    "provider_name": generation.provider_name,
                    "usage": ZERO,
                    "byok_usage_inference": ZERO,
                    "requests": 0,
                    "prompt_tokens": 0,
                    "completion_tokens": 0,
                    "reasoning_tokens": 0,
                    "cached_tokens": 0,
                },
            )
            row["usage"] += billed.usage
            row["byok_usage_inference"] += billed.byok
            row["requests"] += 1
            row["prompt_tokens"] += billed.tokens.prompt
            row["completion_tokens"] += billed.tokens.completion
            row["reasoning_tokens"] += billed.tokens.reasoning
            row["cached_tokens"] += billed.tokens.cached
        for rounding in self.roundings:
            cell = rows.get((rounding.day, rounding.model, rounding.endpoint_id))
            if cell is not None and hash_ in (None, rounding.key_hash):
                cell["usage"] += rounding.amount
        return [rows[cell] for cell in sorted(rows)]

    def used(self, hash_: str | None = None, *, byok: bool = False, since: date | None = None) -> Decimal:
        """USD used so far, by one key or by all."""
        billed = [
            generation.billed.byok if byok else generation.billed.usage
            for generation in self.generations.values()
            if generation.billed is not None
            and hash_ in (None, generation.key_hash)
            and (since is None or generation.day >= since)
        ]
        rounded = [r.amount for r in self.roundings if not byok and hash_ in (None, r.key_hash) and since is None]
        return sum([*billed, *rounded], ZERO)

    def write(self, kind: str, value: msgspec.Struct) -> None:
        """Append one fact to the journal."""
        if self._journal is not None:
            with self._journal.open("ab") as out:
                out.write(msgspec.json.encode({"kind": kind, "value": value}) + b"\n")

    def _replay(self, line: bytes) -> None:
        entry = msgspec.json.decode(line)
        match entry["kind"]:
            case "key":
                key = msgspec.convert(entry["value"], Key)
                self.keys[key.hash] = key
            case "generation":
                generation = msgspec.convert(entry["value"], Generation)
                self.generations[generation.id] = generation
            case "rounding":
                self.roundings.append(msgspec.convert(entry["value"], Rounding))
