"""Differences between what the apps saw and what the statement bills, planted on purpose.

Each plant answers with the class a reconciliation should find and the exact amount, statement minus recorded, in USD.
"""

import secrets
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from tests.fakes.openrouter import models
from tests.fakes.openrouter.tokens import Tokens
from tests.fakes.openrouter.world import BYOK_FEE, Figures, Generation, Rounding, World


class Plant(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to plant, and where. The generation is named by id, else the newest that fits day, model and key_hash."""

    kind: str
    id: str | None = None
    day: date | None = None
    model: str | None = None
    key_hash: str | None = None
    provider: str | None = None
    key_name: str = "unknown-laptop"
    at: datetime | None = None
    tokens: Tokens | None = None
    factor: Decimal = Decimal("1.25")
    extra_prompt: int = 0
    extra_completion: int = 0
    places: int = 5


class Planted(msgspec.Struct, kw_only=True):
    """The difference made: where it is, its class and its amount."""

    kind: str
    amount: Decimal
    day: date
    model: str
    provider_name: str
    key_hash: str
    generation_id: str | None


def plant(world: World, wish: Plant) -> Planted:
    """Make the difference. Raises LookupError when no generation fits, ValueError for an unknown kind."""
    if wish.kind == "unobserved":
        return _unobserved(world, wish)
    generation = _find(world, wish)
    before = generation.billed
    if before is None:
        raise LookupError(f"{generation.id} is not billed: nothing to plant on")
    if wish.kind == "rounding":
        return _rounding(world, wish, generation)
    generation.billed = _other(wish, generation, before)
    world.keep(generation)
    after = generation.billed or Figures(usage=Decimal(0), byok=Decimal(0), tokens=before.tokens)
    return _planted(wish.kind, after.usage + after.byok - before.usage - before.byok, generation)


def _other(wish: Plant, generation: Generation, before: Figures) -> Figures | None:
    match wish.kind:
        case "unbilled":
            return None
        case "price":
            return msgspec.structs.replace(before, usage=before.usage * wish.factor, byok=before.byok * wish.factor)
        case "tokens":
            tokens = msgspec.structs.replace(
                before.tokens,
                prompt=before.tokens.prompt + wish.extra_prompt,
                completion=before.tokens.completion + wish.extra_completion,
            )
            model = models.find(generation.model)
            if model is None:
                raise LookupError(f"{generation.model} is not sold here")
            return Figures(
                usage=models.cost(model, model.endpoint(generation.provider_name), tokens),
                byok=before.byok,
                tokens=tokens,
            )
        case "byok":
            # The reply spoke of credits; the statement says: your own key, we only take the fee.
            return msgspec.structs.replace(before, usage=before.usage * BYOK_FEE, byok=before.usage)
    raise ValueError(f"{wish.kind!r} can't be planted; use unobserved, unbilled, price, tokens, byok or rounding")


def _unobserved(world: World, wish: Plant) -> Planted:
    model = models.find(wish.model or "openai/gpt-4.1-mini")
    if model is None:
        raise LookupError(f"{wish.model} is not sold here")
    key = world.keys.get(wish.key_hash or "") or world.key(f"sk-or-v1-{secrets.token_hex(16)}", wish.key_name)
    made = world.generate(
        model=model,
        endpoint=model.endpoint(wish.provider),
        key=key,
        tokens=wish.tokens or Tokens(prompt=120_000, completion=4_000),
        at=wish.at or datetime.now(UTC),
        observed=False,
    )
    return _planted("unobserved", made.said.usage, made)


def _rounding(world: World, wish: Plant, generation: Generation) -> Planted:
    row = next(
        row
        for row in world.rows(days={generation.day}, hash_=generation.key_hash)
        if (row["model"], row["endpoint_id"]) == (generation.model, generation.endpoint_id)
    )
    exact: Decimal = row["usage"]
    amount = exact.quantize(Decimal(1).scaleb(-wish.places), ROUND_HALF_EVEN) - exact
    world.round(
        Rounding(
            day=generation.day,
            model=generation.model,
            endpoint_id=generation.endpoint_id,
            key_hash=generation.key_hash,
            amount=amount,
        )
    )
    planted = _planted("rounding", amount, generation)
    planted.generation_id = None
    return planted


def _find(world: World, wish: Plant) -> Generation:
    fitting = [
        generation
        for generation in world.generations.values()
        if wish.id in (None, generation.id)
        and wish.day in (None, generation.day)
        and wish.model in (None, generation.model, generation.permaslug)
        and wish.key_hash in (None, generation.key_hash)
        and generation.observed
    ]
    if not fitting:
        raise LookupError(f"no generation fits {msgspec.to_builtins(wish)}")
    return max(fitting, key=lambda generation: generation.created_at)


def _planted(kind: str, amount: Decimal, generation: Generation) -> Planted:
    return Planted(
        kind=kind,
        amount=amount,
        day=generation.day,
        model=generation.model,
        provider_name=generation.provider_name,
        key_hash=generation.key_hash,
        generation_id=generation.id,
    )
