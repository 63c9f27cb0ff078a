"""The two ends of a wire format: the request that was sent, and what its reply said.

Both are plain facts of one HTTP exchange. None means that the exchange did not say it; unknown is never 0.
"""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from spendwatch.calls import NOTHING, Fingerprint, TokenUsage

NO_USAGE = TokenUsage()


class Request(msgspec.Struct, frozen=True):
    """One HTTP request as it goes out."""

    method: str
    """Upper case."""
    host: str
    """Lower case, without the port."""
    port: int | None
    path: str
    """With the query string."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes | None
    """None: the body could not be seen (the app streams it)."""
    default_port: int = 443
    """What port None stands for, by the scheme."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What one exchange said, in the terms of an LLMCall. Costs are USD."""

    is_inference: bool = True
    """False for token counting, batch jobs and the like: they cost nothing by themselves and are no call."""
    provider_name: str
    serving_provider: str | None = None
    operation_name: str
    request_model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    usage: TokenUsage = NO_USAGE
    reported_cost: Decimal | None = None
    upstream_cost: Decimal | None = None
    is_byok: bool | None = None
    service_tier: str | None = None
    finish_reasons: tuple[str, ...] = ()
    """As the provider words them, by the index of the choice."""
    tool_calls: tuple[str, ...] = ()
    """Names of the app's tools that the reply asks for, in order; () as well when names are not to be kept."""
    streamed: bool = False
    is_error: bool = False
    """An HTTP status of 400 and more, or an error inside a reply that began well."""
    error_type: str | None = None
    """The provider's word for the error; None also for an error that carries none."""
    error_code: str | None = None
    complete: bool | None = None
    """Whether a stream reached its own end; for a plain reply None, or False when it broke off."""
    fingerprint: Fingerprint | None = None
    wire_format: str
    attributes: Mapping[str, str] = NOTHING
    """Further facts: choice_count, server_tools, cache_write_5m_input_tokens, ..."""
    note: str | None = None
    """Why the reply, or a part of it, could not be read."""
