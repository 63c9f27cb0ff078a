"""What a call cost: three layers from its tokens and a price book.

Every token is in exactly one bucket, and each bucket is priced once; the sum is exact, never rounded here. A price that
is missing for a part falls back to the whole's (a cache read without a price of its own costs what input costs: too
much rather than too little). A cost that the reply reported always wins over one computed.
"""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

from spendwatch import money
from spendwatch.calls import CostBasis, LLMCall, PricedCall, TokenUsage
from spendwatch.prices.book import Meter, Model, PriceBook

FREE_SUFFIX = ":free"
"""OpenRouter's variants of a model that cost nothing."""

FREE_VERSION = "free"
FAILED_VERSION = "failed-request"

STANDARD_TIERS = (None, "default", "standard", "auto", "on_demand", "")
MAKERS = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "openai_embeddings": "openai",
    "openai_completions": "openai",
    "anthropic_messages": "anthropic",
    "gemini_generate": "gcp.gemini",
    "gemini_embed": "gcp.gemini",
}
"""Wire format -> the provider whose own it is."""
# What a reply without output tokens may still be: these operations have none to charge for.
INPUT_ONLY = ("embeddings", "rerank", "moderation")


def value(call: LLMCall, book: PriceBook) -> PricedCall:
    """The call with list, routed and effective cost, each None when it can't be known. See PricedCall."""
    with localcontext() as context:
        # Prices have up to 15 digits, token counts up to 10: nothing is ever rounded at this precision.
        context.prec = 60
        return _value(call, book)


def listed(call: LLMCall, book: PriceBook) -> tuple[Decimal | None, str | None]:
    """What the call's tokens cost by the book, USD, whatever was reported, and the version of the prices; or None.

    The same as value() of the call finds, without the other layers.
    """
    names = model_names(call)
    free = why_free(call, names)
    if free is not None:
        return money.ZERO, free
    at = call.started_at.astimezone(UTC)
    model = find_model(book, call, names, at)
    if model is None:
        return None, None
    with localcontext() as context:
        context.prec = 60
        found = cost(call, model, at)
    return found, model.version if found is not None else None


def why_free(call: LLMCall, names: list[str]) -> str | None:
    """Why a call costs nothing, None for one that has a price."""
    if call.http_status is not None and call.http_status >= 400 and not _any_tokens(call.usage):
        # Providers charge nothing for a request they refused.
        return FAILED_VERSION
    return FREE_VERSION if names and names[0].endswith(FREE_SUFFIX) and not call.is_byok else None


def _value(call: LLMCall, book: PriceBook) -> PricedCall:
    names = model_names(call)
    free = why_free(call, names)
    if free is not None:
        return _priced(call, money.ZERO, money.ZERO, money.ZERO, free)
    at = call.started_at.astimezone(UTC)
    model = find_model(book, call, names, at)
    differs = model is not None and _differs_from_list(call, model)
    list_cost = cost(call, model, at, listing=True) if model is not None and differs else None
    if model is None:
        listed = None
    elif call.reported_cost is not None and not call.is_byok and differs and _is_listed_alike(call, model):
        # What was charged is known: of what it should have cost only matters whether there was a price.
        listed = list_cost
    else:
        listed = cost(call, model, at)
    if not differs:
        list_cost = listed
    routed_cost = _routed(call, book, names, at, list_cost)
    version = model.version if model is not None and listed is not None else None
    return _priced(call, list_cost, routed_cost, listed, version)


def _differs_from_list(call: LLMCall, model: Model) -> bool:
    """Whether anything may set what the call costs apart from its list price."""
    usage = call.usage
    return bool(
        usage.cache_read_input_tokens
        or usage.cache_write_input_tokens
        or call.service_tier not in STANDARD_TIERS
        or model.has_hours
    )


def _is_listed_alike(call: LLMCall, model: Model) -> bool:
    """Whether the call has a cost by the book exactly when it has a list price: the same rates hold for both."""
    return call.service_tier in STANDARD_TIERS and not model.has_hours


def _priced(
    call: LLMCall, list_cost: Decimal | None, routed: Decimal | None, listed: Decimal | None, version: str | None
) -> PricedCall:
    """The layers with the effective cost on top: reported, else listed here, else listed by the observer."""
    effective, basis = listed, CostBasis.LISTED
    if call.reported_cost is not None:
        effective, basis = call.reported_cost, CostBasis.REPORTED
        if call.is_byok:
            # What was reported is the gateway's fee; the provider's own charge comes on top.
            if call.upstream_cost is not None:
                effective += call.upstream_cost
            elif listed is not None:
                effective, basis = effective + listed, CostBasis.LISTED
    elif listed is None and call.listed_cost is not None:
        effective, version = call.listed_cost, call.price_version
    if effective is None:
        basis = CostBasis.UNPRICED
    return PricedCall(
        call=call,
        list_cost=list_cost,
        routed_cost=routed,
        effective_cost=effective,
        cost_basis=basis,
        price_version=version,
    )


def cost(call: LLMCall, model: Model, at: datetime, *, listing: bool = False) -> Decimal | None:
    """The cost of the call's tokens at a model's rates, USD; None when tokens or rates are not known.

    listing: the list price, that is, no cache prices, no service tier, no hours.
    """
    usage = call.usage
    if usage.input_tokens is None:
        return None
    output_tokens = usage.output_tokens
    if output_tokens is None:
        if call.operation_name not in INPUT_ONLY:
            return None
        output_tokens = 0
    tier = None if listing or call.service_tier in STANDARD_TIERS else call.service_tier
    prices = model.prices(at, tier=tier, input_tokens=usage.input_tokens, by_hour=not listing)
    if prices is None:
        return None
    spent = _input_cost(usage, usage.input_tokens, prices, listing=listing)
    generated = _output_cost(usage, output_tokens, prices)
    if spent is None or generated is None:
        return None
    searched = searches(call)
    if searched:
        spent += searched * prices.get(Meter.WEB_SEARCH, money.ZERO)
    return spent + generated + prices.get(Meter.REQUEST, money.ZERO)


def _input_cost(usage: TokenUsage, total: int, prices: dict[Meter, Decimal], *, listing: bool) -> Decimal | None:
    rate = prices.get(Meter.INPUT)
    if rate is None:
        return money.ZERO if total == 0 else None
    fresh = total
    spent = money.ZERO
    if not listing:
        read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
        if read or written:
            fresh, read, written, hour = input_shares(
                total, read or 0, written or 0, usage.cache_write_1h_input_tokens or 0
            )
            write_rate = prices.get(Meter.CACHE_WRITE, rate)
            spent += read * prices.get(Meter.CACHE_READ, rate)
            spent += written * write_rate
            spent += hour * prices.get(Meter.CACHE_WRITE_1H, write_rate)
    if usage.input_audio_tokens or usage.input_image_tokens:
        for tokens, meter in (
            (usage.input_audio_tokens, Meter.INPUT_AUDIO),
            (usage.input_image_tokens, Meter.INPUT_IMAGE),
        ):
            if tokens and meter in prices:
                part = min(tokens, fresh)
                fresh -= part
                spent += part * prices[meter]
    return spent + fresh * rate


def input_shares(total: Any, read: Any, written: Any, hour: Any, least: Any = min) -> tuple[Any, Any, Any, Any]:
    """Input tokens by what they cost: (fresh, read from cache, written to it, written to it for an hour).

    Some providers report more cached tokens than input tokens: no share goes below zero. Arrays are shared out
    element by element, with numpy's minimum as `least`.
    """
    read = least(read, total)
    written = least(written, total - read)
    hour = least(hour, written)
    return total - read - written, read, written - hour, hour


def _output_cost(usage: TokenUsage, total: int, prices: dict[Meter, Decimal]) -> Decimal | None:
    rate = prices.get(Meter.OUTPUT)
    text = total
    spent = money.ZERO
    if usage.reasoning_output_tokens or usage.output_audio_tokens or usage.output_image_tokens:
        for tokens, meter in (
            (usage.reasoning_output_tokens, Meter.REASONING),
            (usage.output_audio_tokens, Meter.OUTPUT_AUDIO),
            (usage.output_image_tokens, Meter.OUTPUT_IMAGE),
        ):
            if tokens and meter in prices:
                part = min(tokens, text)
                text -= part
                spent += part * prices[meter]
    if rate is None:
        return spent if text == 0 else None
    return spent + text * rate


def searches(call: LLMCall) -> int:
    """Searches by the provider's own tool, which are billed by the piece."""
    given = call.attributes.get("web_searches", "")
    return int(given) if given.isdecimal() and len(given) < 7 else 0


def _any_tokens(usage: TokenUsage) -> bool:
    return bool(usage.input_tokens or usage.output_tokens or usage.total_tokens)


def model_names(call: LLMCall) -> list[str]:
    """The model's names, the one asked for first; at Azure that is a deployment, so the served model's first."""
    names = [call.request_model, call.response_model]
    if call.provider_name.startswith("azure."):
        names.reverse()
    return [name for name in names if name]


def find_model(book: PriceBook, call: LLMCall, names: list[str], at: datetime) -> Model | None:
    """The model with rates that one of the names means at that provider.

    A host that nobody knows (a proxy of the company's, a gateway) is its own name as a provider: what it calls by the
    name of a model of the wire format's maker is listed at the maker's price. One that is named in `hosts` never is.
    """
    providers = [call.provider_name]
    if call.provider_name == call.server_address and call.wire_format in MAKERS:
        providers.append(MAKERS[call.wire_format])
    for provider in providers:
        for name in names:
            found = book.find(provider, name, at)
            if found is not None and found.rates:
                return found
    return None


def _routed(
    call: LLMCall, book: PriceBook, names: list[str], at: datetime, list_cost: Decimal | None
) -> Decimal | None:
    """Behind a gateway the serving endpoint's list price, called directly the list price itself."""
    if call.serving_provider is None:
        return list_cost if call.provider_name != "openrouter" else None
    endpoint = find_endpoint(book, call, names)
    return cost(call, endpoint, at, listing=True) if endpoint is not None else None


def find_endpoint(book: PriceBook, call: LLMCall, names: list[str]) -> Model | None:
    """The endpoint behind a gateway that served the call."""
    if call.serving_provider is None:
        return None
    found = (book.endpoint(name, call.serving_provider) for name in reversed(names))
    return next((endpoint for endpoint in found if endpoint is not None), None)
