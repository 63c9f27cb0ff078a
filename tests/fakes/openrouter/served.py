"""One answer about to be written, whatever the wire format: what chat.py and messages.py render."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from tests.fakes.openrouter.script import Script
from tests.fakes.openrouter.tokens import Tokens

_encoder = msgspec.json.Encoder(decimal_format="number")


def encode(value: object) -> bytes:
    """JSON with exact numbers for money."""
    return _encoder.encode(value)


@dataclass(frozen=True)
class Money:
    """What OpenRouter adds to usage. usage: USD of credits. upstream: USD at the provider."""

    usage: Decimal
    upstream: Decimal
    upstream_prompt: Decimal
    is_byok: bool


@dataclass(frozen=True)
class Served:
    """The answer's id, model and provider as the reply names them; money is None for a direct provider."""

    id: str
    created: int
    model: str
    provider: str | None
    tokens: Tokens
    script: Script
    money: Money | None

    @property
    def cost_fields(self) -> dict[str, object]:
        """usage.cost and its kin, as OpenRouter writes them."""
        if self.money is None:
            return {}
        return {
            "cost": self.money.usage,
            "is_byok": self.money.is_byok,
            "cost_details": {
                "upstream_inference_cost": self.money.upstream,
                "upstream_inference_prompt_cost": self.money.upstream_prompt,
                "upstream_inference_completions_cost": self.money.upstream - self.money.upstream_prompt,
            },
        }
