"""What another instrumentation's span says of a call, under the names of its dialect, and what its figures mean.

Each function makes one kind of figure of what was sent; what it had to decide it notes beside the call. Pure. Never
here: which spans are calls, who was called.
"""

from datetime import datetime, timedelta
from decimal import Decimal

from collectors.otlp.dialects import Dialect
from collectors.otlp.spans import Span
from collectors.otlp.unfolding import unfold
from collectors.otlp.usage import Counts, count, usage
from spendwatch import money
from spendwatch.calls import TokenUsage

_MAX_SPAN_COST_USD = Decimal(1000)

PARTIAL_COUNTS = ("uncached_input", "visible_output")
"""Facts that count a part of the tokens; the whole is made of it and of others."""
FIRST_CHUNK = ("first_chunk_s", "first_chunk_ms", "first_chunk_at")
NOTES = ("usage_semantics", "cost_rejected")
"""The attributes of a call that say how its figures were read."""


class Facts:
    """The attributes of a span under a dialect's names."""

    def __init__(self, span: Span, dialect: Dialect) -> None:
        self.attributes = unfold(span.attributes, dialect.unfold)
        self._names = dialect.names

    def any(self, fact: str) -> object:
        """The value under the best of its names that is there."""
        for name in self._names.get(fact, ()):
            value = self.attributes.get(name)
            if value is not None and value != "":
                return value
        return None

    def text(self, fact: str) -> str | None:
        """The same, None when it is no text."""
        return text_of(self.any(fact))

    def flag(self, fact: str) -> bool | None:
        """The same, None when it is neither true nor false."""
        value = self.any(fact)
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())

    def count(self, fact: str) -> int | None:
        """The value under the best of its names that is a count."""
        for name in self._names.get(fact, ()):
            value = count(self.attributes.get(name))
            if value is not None:
                return value
        return None


def tokens_of(facts: Facts, dialect: Dialect, provider: str, attributes: dict[str, str]) -> TokenUsage:
    """The call's tokens by semconv's meaning. attributes: takes a note of what was decided."""
    given, output = facts.count("input_tokens"), facts.count("output_tokens")
    includes_cache, includes_reasoning = dialect.input_includes_cache, True
    if given is None:
        given = facts.count("uncached_input")
        includes_cache = False if given is not None else includes_cache
    if output is None:
        output = facts.count("visible_output")
        includes_reasoning = output is None
    counts = Counts(
        input=given,
        output=output,
        total=facts.count("total_tokens"),
        cache_read=facts.count("cache_read"),
        cache_write=facts.count("cache_write"),
        cache_write_1h=facts.count("cache_write_1h"),
        reasoning=facts.count("reasoning"),
        input_audio=facts.count("input_audio"),
        output_audio=facts.count("output_audio"),
        input_image=facts.count("input_image"),
        output_image=facts.count("output_image"),
    )
    tokens, semantics = usage(
        counts, provider=provider, includes_cache=includes_cache, includes_reasoning=includes_reasoning
    )
    if semantics:
        attributes["usage_semantics"] = semantics
    return tokens


def first_chunk_us(facts: Facts, started_at: datetime) -> int | None:
    """How long the first chunk took, by itself or by when it came."""
    found = microseconds(facts.any("first_chunk_s"), 1_000_000) or microseconds(facts.any("first_chunk_ms"), 1000)
    at = facts.text("first_chunk_at")
    if found is None and at is not None:
        try:
            arrived = datetime.fromisoformat(at.strip('"'))
        except ValueError:
            return None
        if arrived.tzinfo is not None and arrived >= started_at:
            return (arrived - started_at) // timedelta(microseconds=1)
    return found


def costs(
    facts: Facts, dialect: Dialect, has_tokens: bool, attributes: dict[str, str]
) -> tuple[Decimal | None, Decimal | None]:
    """(charged, estimated) in USD. A cost that can't be one is kept as an attribute, so that it can be looked into."""
    charge = money.parse_cost(facts.any("charged_cost"))
    if charge is not None and charge <= _MAX_SPAN_COST_USD:
        return charge, None
    said = facts.any("cost")
    amount = money.parse_cost(said)
    currency = facts.text("cost_currency")
    if said is None:
        return None, None
    if amount is None or amount > _MAX_SPAN_COST_USD or currency not in (None, "USD"):
        attributes["cost_rejected"] = f"{said} {currency or 'USD'}"[:100]
        return None, None
    charged = dialect.cost_is_charged or facts.text("cost_source") == "provider"
    if amount == 0 and has_tokens and not dialect.cost_is_charged:
        # An instrumentation writes 0 when it does not know the price. A model that is free is so by the price book.
        return None, None
    return (amount, None) if charged else (None, amount)


def text_of(value: object) -> str | None:
    """The value when it is a text with something in it."""
    return value if isinstance(value, str) and value else None


def microseconds(value: object, unit: int) -> int | None:
    """A time in a unit of so many microseconds."""
    amount = money.parse(value)
    return round(amount * unit) if amount is not None and 0 <= amount < 10**9 else None
