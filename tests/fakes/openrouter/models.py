"""The models this provider sells: slugs, dated ids, endpoints and prices, and what a call of each costs.

Prices are decimal strings, USD per token, as OpenRouter writes them. The cost of a call is exact.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.fakes.openrouter.tokens import Tokens


@dataclass(frozen=True)
class Endpoint:
    """One provider's offer of a model; prices of its own where it does not charge the model's."""

    id: str
    provider_name: str
    pricing: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A row of /models with its endpoints; the first endpoint serves when nobody asks for another."""

    id: str
    canonical_slug: str
    name: str
    pricing: dict[str, Any]
    endpoints: tuple[Endpoint, ...]
    resolves_to: str | None = None

    def endpoint(self, provider_name: str | None) -> Endpoint:
        """The endpoint of that provider, the first one when None. Raises LookupError for a stranger."""
        for endpoint in self.endpoints:
            if provider_name in (None, endpoint.provider_name):
                return endpoint
        raise LookupError(f"{self.id} is not served by {provider_name}")


MODELS: tuple[Model, ...] = (
    Model(
        "openai/gpt-4.1-mini",
        "openai/gpt-4.1-mini-2025-04-14",
        "OpenAI: GPT-4.1 Mini",
        {"prompt": "0.0000004", "completion": "0.0000016", "input_cache_read": "0.0000001", "request": "0"},
        (Endpoint("0b2e", "OpenAI"), Endpoint("0b2f", "Azure")),
    ),
    Model(
        "openai/gpt-5-mini",
        "openai/gpt-5-mini-2025-08-07",
        "OpenAI: GPT-5 Mini",
        {"prompt": "2.5e-7", "completion": "0.000002", "input_cache_read": "0.000000025", "request": "0"},
        (Endpoint("1c01", "OpenAI"), Endpoint("1c02", "Azure")),
    ),
    Model(
        "anthropic/claude-sonnet-4.5",
        "anthropic/claude-4.5-sonnet-20250929",
        "Anthropic: Claude Sonnet 4.5",
        {
            "prompt": "0.000003",
            "completion": "0.000015",
            "request": "0",
            "input_cache_read": "0.0000003",
            "input_cache_write": "0.00000375",
            "input_cache_write_1h": "0.000006",
            "overrides": [
                {
                    "min_prompt_tokens": 200000,
                    "prompt": "0.000006",
                    "completion": "0.0000225",
                    "input_cache_read": "0.0000006",
                    "input_cache_write": "0.0000075",
                    "input_cache_write_1h": "0.000012",
                }
            ],
        },
        (Endpoint("9aa1", "Anthropic"), Endpoint("9aa2", "Amazon Bedrock")),
    ),
    Model(
        "google/gemini-2.5-flash",
        "google/gemini-2.5-flash",
        "Google: Gemini 2.5 Flash",
        {"prompt": "0.0000003", "completion": "0.0000025", "input_cache_read": "0.000000075", "request": "0"},
        (Endpoint("7d10", "Google"), Endpoint("7d11", "Google AI Studio")),
    ),
    Model(
        "meta-llama/llama-3.3-70b-instruct",
        "meta-llama/llama-3.3-70b-instruct",
        "Meta: Llama 3.3 70B Instruct",
        {"prompt": "0.00000012", "completion": "0.00000038", "request": "0"},
        (
            Endpoint("5e51", "DeepInfra"),
            Endpoint("5e52", "Groq", {"prompt": "0.00000059", "completion": "0.00000079", "request": "0"}),
        ),
    ),
    Model(
        "meta-llama/llama-3.3-70b-instruct:free",
        "meta-llama/llama-3.3-70b-instruct",
        "Meta: Llama 3.3 70B Instruct (free)",
        {"prompt": "0", "completion": "0", "request": "0"},
        (Endpoint("5e5f", "Venice"),),
    ),
    Model(
        "openrouter/auto",
        "openrouter/auto",
        "Auto Router",
        {"prompt": "-1", "completion": "-1"},
        (),
        resolves_to="openai/gpt-4.1-mini",
    ),
)

# Suffixes that choose among the same model's endpoints: they are billed under the plain slug.
ROUTING_SUFFIXES = (":nitro", ":floor", ":exacto", ":online")


def find(name: str) -> Model | None:
    """The model that serves a request for `name`: a slug, a dated id, a routed variant, a router."""
    for suffix in ROUTING_SUFFIXES:
        name = name.removesuffix(suffix)
    for model in MODELS:
        if name in (model.id, model.canonical_slug):
            return find(model.resolves_to) if model.resolves_to else model
    return None


def cost(model: Model, endpoint: Endpoint, tokens: Tokens) -> Decimal:
    """USD of one call: disjoint buckets of tokens at the endpoint's prices, dearer above an override's threshold."""
    prices = {**(endpoint.pricing or model.pricing)}
    for override in prices.pop("overrides", ()):
        if tokens.prompt > override["min_prompt_tokens"]:
            prices.update(override)
    rate = {name: Decimal(str(value)) for name, value in prices.items()}
    prompt, write = rate["prompt"], rate.get("input_cache_write", rate["prompt"])
    short_writes = tokens.cache_write - tokens.cache_write_1h
    return (
        (tokens.prompt - tokens.cached - tokens.cache_write) * prompt
        + tokens.cached * rate.get("input_cache_read", prompt)
        + short_writes * write
        + tokens.cache_write_1h * rate.get("input_cache_write_1h", write)
        + tokens.completion * rate["completion"]
        + rate.get("request", Decimal(0))
    )


def models_document() -> dict[str, Any]:
    """The answer of GET /models."""
    return {"data": [_row(model) for model in MODELS]}


def _row(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "canonical_slug": model.canonical_slug,
        "name": model.name,
        "created": 1759161600,
        "context_length": 1000000,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"], "modality": "text->text"},
        "supported_parameters": ["tools", "max_tokens"],
        "links": {"details": f"/api/v1/models/{model.canonical_slug}/endpoints"},
        "pricing": model.pricing,
    }


def endpoints_document(model: Model) -> dict[str, Any]:
    """The answer of GET /models/{author}/{slug}/endpoints."""
    endpoints = [
        {
            "name": f"{endpoint.provider_name} | {model.id}",
            "model_id": model.canonical_slug,
            "provider_name": endpoint.provider_name,
            "status": 0,
            "pricing": {"discount": 0, **(endpoint.pricing or model.pricing)},
        }
        for endpoint in model.endpoints
    ]
    return {"data": {"id": model.id, "name": model.name, "endpoints": endpoints}}
