"""US dollars as Decimal: parse, format, quantise.

Invariant: a figure never passes through a float on its way in; a float that a JSON library already made is read by
its shortest decimal text. Unknown is None, never 0.
"""

from decimal import Decimal, InvalidOperation, localcontext

PICO_USD = Decimal("0.000000000001")
"""The smallest amount stored: ClickHouse keeps Decimal(18, 12)."""

ZERO = Decimal(0)

MAX_COST_USD = Decimal(100_000)
"""A single call above this is a misread number, not a price; it also keeps every cost inside Decimal(18, 12)."""

MAX_EXPONENT = 100
"""A number with more zeros than this is no amount, and written out it would fill the memory: 1e999999999."""


def parse(value: object) -> Decimal | None:
    """Read an amount in USD from a JSON number, a decimal string or a Decimal; None when it is no such number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        # str() of a float is its shortest exact-round-trip text: 0.1 stays 0.1.
        amount = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and abs(amount.adjusted()) <= MAX_EXPONENT else None


def parse_cost(value: object) -> Decimal | None:
    """Like parse, but None also for a negative amount or one above MAX_COST_USD: no call costs that."""
    amount = parse(value)
    return amount if amount is not None and ZERO <= amount <= MAX_COST_USD else None


def text(amount: Decimal) -> str:
    """The amount as a plain decimal string: no exponent, no trailing zeros ("0.0021344", "0", "12")."""
    plain = format(amount, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain


def quantize(amount: Decimal) -> Decimal:
    """The amount rounded half-even to a pico-dollar, the precision of the store."""
    with localcontext() as context:
        context.prec = 50
        return amount.quantize(PICO_USD)


def pico(amount: Decimal) -> int:
    """The amount in whole pico-dollars (rounded half-even), for integer arithmetic and columnar inserts."""
    return int(quantize(amount).scaleb(12))
