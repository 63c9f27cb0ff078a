"""listed() for the calls of one process, which are of a few models: what a price hangs on but counts is found once.

Invariant: the same figure and version as listed() gives. Whatever is out of the ordinary (searches, audio, hours of the
day, dated snapshots, a failure) is left to it. Never here: a price, a rule of one provider.
"""

from bisect import bisect_left
from decimal import Context, Decimal

from spendwatch import money
from spendwatch.calls import LLMCall, TokenUsage
from spendwatch.prices.book import PriceBook
from spendwatch.prices.tariff import Rates, Tariff, Terms, terms
from spendwatch.prices.value import input_shares, listed

_MAX_KEPT = 512
_EXACT = Context(prec=60)
_Known = tuple[Terms | None, dict[int, Tariff | None]]


class Lister:
    """Lists calls by one book. Used by all threads at once."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._kept: dict[object, _Known] = {}

    def listed(self, call: LLMCall) -> tuple[Decimal | None, str | None]:
        """What the call's tokens cost by the book, USD, and the version of the prices; None where not known."""
        rates = self._tariff(call)
        if rates is None:
            return listed(call, self._book)
        if isinstance(rates, str):
            return money.ZERO, rates
        plain = rates.listed
        if plain is None:
            return None, None
        # Decimal() and scaleb() are exact, the latter within the given context.
        return Decimal(_spent(call.usage, plain)).scaleb(-plain.digits, _EXACT), rates.version

    def _tariff(self, call: LLMCall) -> Tariff | str | None:
        """The rates that hold for the call, why it is free, or None: listed() shall say."""
        usage, status = call.usage, call.http_status
        given = usage.input_tokens
        if (
            given is None
            or usage.output_tokens is None
            or (status is not None and status >= 400)
            or usage.input_audio_tokens
            or usage.input_image_tokens
            or usage.output_audio_tokens
            or usage.output_image_tokens
            or self._book.dated
            or "web_searches" in call.attributes
        ):
            return None
        key = (
            call.provider_name, call.request_model, call.response_model, call.service_tier, call.is_byok,
            call.server_address, call.wire_format, call.operation_name, call.started_at.date(),
        )  # fmt: skip
        known = self._kept.get(key)
        if known is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            known = self._kept[key] = (terms(call, self._book), {})
        found, tariffs = known
        if found is None or found.free is not None:
            return None if found is None else found.free
        step = bisect_left(found.steps, given)
        if step not in tariffs:
            tariffs[step] = found.tariff(given)
        return tariffs[step]


def _spent(usage: TokenUsage, rates: Rates) -> int:
    """In the rates' unit."""
    given, said = usage.input_tokens or 0, usage.output_tokens or 0
    thought = min(usage.reasoning_output_tokens or 0, said)
    total = rates.fixed + (said - thought) * rates.output + thought * rates.reasoning
    read, written = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    if not (read or written):
        return total + given * rates.input
    fresh, read, written, hour = input_shares(given, read, written, usage.cache_write_1h_input_tokens or 0)
    total += fresh * rates.input + read * rates.cache_read
    return total + written * rates.cache_write + hour * rates.cache_write_1h  # type: ignore[no-any-return]
