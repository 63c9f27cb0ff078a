"""Who is called: the provider behind a host, in the names of OpenTelemetry's GenAI conventions where those have one.

A host that is in no table is named by its reply's own signs (`from_reply`), else by itself. Never here: what a
provider's replies look like.
"""

from collections.abc import Mapping
from functools import lru_cache

OPENROUTER = "openrouter"

_HOSTS: dict[str, str] = {
    "api.openai.com": "openai",
    "chatgpt.com": "openai",
    "api.anthropic.com": "anthropic",
    "openrouter.ai": OPENROUTER,
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.mistral.ai": "mistral_ai",
    "codestral.mistral.ai": "mistral_ai",
    "api.x.ai": "x_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.perplexity.ai": "perplexity",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.together.xyz": "together_ai",
    "api.together.ai": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.cerebras.ai": "cerebras",
    "api.z.ai": "z_ai",
    "open.bigmodel.cn": "z_ai",
    "api.minimax.io": "minimax",
    "api.minimaxi.com": "minimax",
    "api.ai21.com": "ai21",
    "api.writer.com": "writer",
    "api.venice.ai": "venice",
    "api.voyageai.com": "voyageai",
    "api.doubleword.ai": "doubleword",
    "api.githubcopilot.com": "github_copilot",
    "router.huggingface.co": "huggingface",
    "api-inference.huggingface.co": "huggingface",
    "ai-gateway.vercel.sh": "vercel_ai_gateway",
    "api.portkey.ai": "portkey",
    "api.cloudflare.com": "cloudflare",
    "gateway.ai.cloudflare.com": "cloudflare",
    "ollama.com": "ollama_cloud",
    "api.sambanova.ai": "sambanova",
    "integrate.api.nvidia.com": "nvidia",
    "api.deepinfra.com": "deepinfra",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.novita.ai": "novita",
    "api.studio.nebius.ai": "nebius",
    "api.studio.nebius.com": "nebius",
    "inference.baseten.co": "baseten",
    "dashscope.aliyuncs.com": "alibaba_cloud",
    "dashscope-intl.aliyuncs.com": "alibaba_cloud",
    "dashscope-us.aliyuncs.com": "alibaba_cloud",
    "api.replicate.com": "replicate",
    "api.deepgram.com": "deepgram",
    "api.aleph-alpha.com": "aleph_alpha",
    # Helicone passes each provider's API on as it is, under a host of its own.
    "oai.helicone.ai": "openai",
    "anthropic.helicone.ai": "anthropic",
    "groq.helicone.ai": "groq",
    "openrouter.helicone.ai": OPENROUTER,
    "together.helicone.ai": "together_ai",
    "deepseek.helicone.ai": "deepseek",
    "gateway.helicone.ai": "helicone",
    "ai-gateway.helicone.ai": "helicone",
}

_SUFFIXES: tuple[tuple[str, str], ...] = (
    (".openai.azure.com", "azure.ai.openai"),
    (".cognitiveservices.azure.com", "azure.ai.openai"),
    (".openai.azure.us", "azure.ai.openai"),
    (".openai.azure.cn", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".models.ai.azure.com", "azure.ai.inference"),
    (".inference.ai.azure.com", "azure.ai.inference"),
    (".inference.ml.azure.com", "azure.ai.inference"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    (".rep.googleapis.com", "gcp.vertex_ai"),
    (".api.openai.com", "openai"),
    (".api.x.ai", "x_ai"),
    (".openrouter.ai", OPENROUTER),
    (".azuredatabricks.net", "databricks"),
    (".cloud.databricks.com", "databricks"),
    (".gcp.databricks.com", "databricks"),
    (".dashscope.aliyuncs.com", "alibaba_cloud"),
    (".maas.aliyuncs.com", "alibaba_cloud"),
    (".ml.cloud.ibm.com", "ibm.watsonx.ai"),
    (".endpoints.huggingface.cloud", "huggingface"),
)

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


@lru_cache(maxsize=256)
def from_host(host: str) -> str | None:
    """The provider that a host belongs to, None when it is not known."""
    known = _HOSTS.get(host)
    if known is not None:
        return known
    if host.endswith(_AMAZON) and (host.startswith("bedrock") or ".bedrock-runtime." in host):
        return "aws.bedrock"
    for suffix, provider in _SUFFIXES:
        if host.endswith(suffix):
            return provider
    return None


def from_reply(
    host: str, port: int | None, headers: Mapping[str, str], response_id: str | None, fingerprint: str | None
) -> str:
    """A name for a host of no table, by what its reply shows: response headers, its id, its system_fingerprint."""
    if "x-generation-id" in headers or (response_id or "").startswith("gen-"):
        return OPENROUTER
    names = "\n".join(("", *headers))
    if "\nx-litellm-" in names:
        return "litellm"
    if "\nx-portkey-" in names:
        return "portkey"
    if fingerprint == "fp_ollama" or port == 11434:
        return "ollama"
    return host or "unknown"
