"""Spendwatch: the LLM bill that a company can prove. `import spendwatch` is the SDK.

    import spendwatch
    spendwatch.instrument()

records every LLM call that httpx and httpx2 clients of this process make from then on, the official SDKs' among them.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from spendwatch.calls import LLMCall, TokenUsage
from spendwatch.errors import ConfigError, SpendwatchError
from spendwatch.tagging import tags
from spendwatch.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import TracerProvider

__all__ = [
    "ConfigError",
    "LLMCall",
    "SpendwatchError",
    "TokenUsage",
    "__version__",
    "flush",
    "instrument",
    "tags",
    "uninstrument",
]


def instrument(
    *,
    endpoint: str | None = None,
    token: str | None = None,
    service: str | None = None,
    tags: Mapping[str, str] | None = None,
    clients: Iterable[str] | None = None,
    hosts: Mapping[str, str | None] | None = None,
    http_spans: bool | None = None,
    request_stream_usage: bool = False,
    tool_names: bool = True,
    span_exporter: "SpanExporter | None" = None,
    tracer_provider: "TracerProvider | None" = None,
) -> None:
    """Record every LLM call of this process from now on. Everything can come from the environment.

    endpoint (SPENDWATCH_ENDPOINT): the server's http(s) address; default http://127.0.0.1:4318. token
    (SPENDWATCH_TOKEN): the project's ingest token. service (SPENDWATCH_SERVICE, OTEL_SERVICE_NAME): the app's name.
    tags (SPENDWATCH_TAGS, "team=search,agent=x"): hold for the whole process, under those of tags().
    clients: which HTTP clients to hook ("httpx", "httpx2"); all by default. hosts (SPENDWATCH_HOSTS): "host" or
    "host:port" -> the provider it speaks for, or None for a host never to be recorded.
    http_spans: an HTTP span under each call's, by opentelemetry-instrumentation-httpx; unset, when the app has a
    TracerProvider of its own and that package is installed. The call's span is then shown in the app's traces too.
    request_stream_usage: ask for the token usage of OpenAI chat streams where the app didn't, and keep the extra event
    from it; without it such streams are recorded with unknown tokens.
    tool_names: keep the names of the tools that replies ask for.
    span_exporter: hand spans to this OpenTelemetry exporter instead of sending them to the endpoint; nothing is then
    kept on disk. tracer_provider: make each call a span of the app's own traces, begun and ended when the call is over
    and with all its attributes from the start (with http_spans it begins when the call does). If no endpoint is set,
    neither here nor by SPENDWATCH_ENDPOINT or OTEL_EXPORTER_OTLP_*, that is all: the provider's own pipeline exports,
    nothing is spooled or sent by spendwatch. With an endpoint, both.

    A second call with the same arguments does nothing, with others replaces the first. OTEL_SDK_DISABLED=true turns
    it off. Raises ConfigError for a setting that is wrong; never touches the network.
    """
    from spendwatch import runtime

    runtime.instrument(
        {
            "endpoint": endpoint,
            "token": token,
            "service": service,
            "tags": tags,
            "clients": clients,
            "hosts": hosts,
            "http_spans": http_spans,
            "request_stream_usage": request_stream_usage,
            "tool_names": tool_names,
        },
        span_exporter=span_exporter,
        tracer_provider=tracer_provider,
    )


def uninstrument() -> None:
    """Stop recording and leave the clients as they were found. A call under way is recorded as left."""
    from spendwatch import runtime

    runtime.uninstrument()


def flush(timeout_s: float = 5.0) -> bool:
    """Send what has been recorded so far; True when all of it was taken within `timeout_s` seconds."""
    from spendwatch import runtime

    return runtime.flush(timeout_s)
