"""gen_ai.provider.name, made one spelling: what instrumentations call a provider -> the name its calls are stored by.

The host that was called decides where it is known (by the SDK's own table), because an OpenAI client that talks to
OpenRouter is reported as "openai", and the same reply seen by two observers must have one identity (provider +
response id).
"""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from spendwatch.wire import providers as wire

_SPELLINGS: Mapping[str, str] = {
    "google": "gcp.gen_ai",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google.generative-ai": "gcp.gemini",
    "gcp.gemini": "gcp.gemini",
    "vertexai": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "google.vertex": "gcp.vertex_ai",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "aws": "aws.bedrock",
    "amazon-bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "x-ai": "x_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "cohere_chat": "cohere",
    "together": "together_ai",
    "togetherai": "together_ai",
    "fireworks": "fireworks_ai",
    "text-completion-openai": "openai",
    "watsonx": "ibm.watsonx.ai",
    "zai": "z_ai",
}
_FRAMEWORKS = frozenset((
    "strands-agents", "langchain", "llama_index", "llamaindex", "crewai", "autogen", "ag2", "haystack", "agno", "dspy",
    "smolagents", "semantic_kernel", "langgraph", "google_adk",
))  # fmt: skip
"""What some instrumentations name instead of a provider."""
_WITH_A_DOT = frozenset(("aws", "azure", "gcp", "ibm", "az"))

ADDITIVE_INPUT = frozenset(("anthropic", "aws.bedrock"))
"""Providers whose own replies count cache reads and writes beside the input tokens, not in them."""

UNKNOWN = "unknown"
"""Who was called, when a span has a model but neither a provider nor a host, and the model tells nothing."""

_BY_MODEL: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gpt-", "chatgpt-", "o1", "o3", "o4-", "text-embedding-", "davinci", "whisper-", "tts-", "dall-e"), "openai"),
    (("claude-",), "anthropic"),
    (("gemini-",), "gcp.gemini"),
    (("mistral-", "ministral-", "codestral-", "magistral-", "pixtral-"), "mistral_ai"),
    (("deepseek-",), "deepseek"),
    (("grok-",), "x_ai"),
    (("command-", "embed-english", "embed-multilingual"), "cohere"),
    (("sonar",), "perplexity"),
)
"""How a provider's own names for its models begin. A name with a vendor in front ("openai/gpt-4o") is a gateway's."""
_BEDROCK = re.compile(
    r"((us|eu|apac|jp|au|global)\.)?(anthropic|amazon|meta|cohere|mistral|ai21|deepseek|qwen|openai)\.[a-z]"
)
"""Amazon Bedrock's names: "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"."""


def host_of(address: str | None) -> str | None:
    """The host in an address or URL, lower case."""
    if not address:
        return None
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return None


def provider_name(named: str | None, host: str | None, response_id: str | None) -> str | None:
    """The provider's one name, None when neither the span nor its host says who was called."""
    known = wire.from_host(host) if host else None
    if known is not None:
        return known
    name = (named or "").strip().strip('"').lower()
    if name in _FRAMEWORKS:
        name = ""
    # OpenRouter's ids ("gen-1763769600-Ab3…") are like nobody else's; its clients are OpenAI's.
    if response_id and response_id.startswith("gen-") and name in ("", "openai"):
        return wire.OPENROUTER
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    # The Vercel AI SDK adds the API to the name: "openai.chat", "anthropic.messages", "google.generative-ai".
    head = name.split(".", 1)[0]
    if head != name and head not in _WITH_A_DOT:
        return _SPELLINGS.get(head, head)
    return name or None


def provider_by_model(provider_model: str | None, model: str | None) -> str | None:
    """Who was called, by the model alone; None when there is no model, UNKNOWN when it tells nothing.

    provider_model: a model with its provider in front, as LiteLLM writes it ("azure/gpt-4o").
    """
    head, _, rest = (provider_model or "").partition("/")
    if rest:
        return provider_name(head, None, None)
    name = (model or provider_model or "").lower()
    if not name:
        return None
    if _BEDROCK.match(name):
        return "aws.bedrock"
    return next((provider for starts, provider in _BY_MODEL if name.startswith(starts)), UNKNOWN)
