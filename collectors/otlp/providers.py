"""gen_ai.provider.name, made one spelling: what instrumentations call a provider -> the name its calls are stored by.

The host that was called decides where it is known, because an OpenAI client that talks to OpenRouter is reported as
"openai", and the same reply seen by two observers must have one identity (provider + response id).
"""

from collections.abc import Mapping

_HOSTS: Mapping[str, str] = {
    "openrouter.ai": "openrouter",
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
_SPELLINGS: Mapping[str, str] = {
    "google": "gcp.gen_ai",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google.generative-ai": "gcp.gemini",
    "gcp.gemini": "gcp.gemini",
    "vertexai": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "google.vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "amazon-bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "x-ai": "x_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
}
_WITH_A_DOT = frozenset(("aws", "azure", "gcp", "ibm", "az"))

ADDITIVE_INPUT = frozenset(("anthropic", "aws.bedrock"))
"""Providers whose own replies count cache reads and writes beside the input tokens, not in them."""


def provider_name(named: str | None, host: str | None, response_id: str | None) -> str | None:
    """The provider's one name, None when neither the span nor its host says who was called."""
    if host:
        host = host.lower().removeprefix("https://").split("/", 1)[0].split(":", 1)[0]
        for known, name in _HOSTS.items():
            if host == known or host.endswith((f".{known}", f"-{known}")):
                return name
        if host.startswith("bedrock-runtime.") and host.endswith(".amazonaws.com"):
            return "aws.bedrock"
    name = (named or "").strip().lower()
    # OpenRouter's ids ("gen-1763769600-Ab3…") are like nobody else's; its clients are OpenAI's.
    if response_id and response_id.startswith("gen-") and name in ("", "openai"):
        return "openrouter"
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    # The Vercel AI SDK adds the API to the name: "openai.chat", "anthropic.messages", "google.generative-ai".
    head = name.split(".", 1)[0]
    if head != name and head not in _WITH_A_DOT:
        return _SPELLINGS.get(head, head)
    return name or None
