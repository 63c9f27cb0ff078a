"""Everything known about one call, in the order a person asks for it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from server import formats
from spendwatch.calls import CostBasis
from spendwatch.clickhouse.queries import StoredCall

BASIS = {
    CostBasis.UNPRICED: "no price is known for this call; it is not in any sum of spend",
    CostBasis.LISTED: "valued with the price book",
    CostBasis.REPORTED: "the reply said what it cost",
    CostBasis.SETTLED: "a statement of the provider agreed",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the three costs, and what it changes against the one before."""

    name: str
    amount: Decimal | None
    note: str
    change: Decimal | None
    change_name: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its facts: name, value, whether the value is an id or hash."""

    title: str
    facts: list[tuple[str, str, bool]]


def layers(call: StoredCall) -> list[Layer]:
    """list -> routed -> effective: what the call would have cost, step by step down to what it did cost."""
    return [
        Layer("List", call.list_cost, "the requested model's list price, no cache, no routing", None, ""),
        Layer(
            "Routed",
            call.routed_cost,
            "the same tokens at the price of the endpoint that served",
            _change(call.list_cost, call.routed_cost),
            "by routing",
        ),
        Layer(
            "Effective",
            call.effective_cost,
            BASIS[call.cost_basis],
            _change(call.routed_cost, call.effective_cost),
            "by cache, tier and discounts",
        ),
    ]


def sections(call: StoredCall) -> dict[str, Any]:
    """What the page of one call shows."""
    one, usage, tags = call.call, call.call.usage, call.call.tags
    fingerprint = one.fingerprint
    first_chunk = None if one.time_to_first_chunk_us is None else formats.duration(one.time_to_first_chunk_us)
    tools = ", ".join(tool.name or tool.arguments for tool in fingerprint.tools) if fingerprint else ""
    return {
        "layers": layers(call),
        "left": [
            _section(
                "Call",
                [
                    ("Started (UTC)", one.started_at.strftime("%Y-%m-%d %H:%M:%S.%f")),
                    ("Duration", formats.duration(one.duration_us)),
                    ("Time to first chunk", first_chunk),
                    ("Status", one.status.value),
                    ("HTTP status", one.http_status),
                    ("Error", one.error_type),
                    ("Finish reasons", ", ".join(one.finish_reasons)),
                    ("Streamed", "yes" if one.streamed else "no"),
                    ("Operation", one.operation_name),
                    ("Provider", one.provider_name),
                    ("Served by", one.serving_provider),
                    ("Requested model", one.request_model),
                    ("Model that answered", one.response_model),
                    ("Service tier", one.service_tier),
                    ("Own key at the provider (BYOK)", None if one.is_byok is None else "yes" if one.is_byok else "no"),
                ],
            ),
            _section(
                "Tokens",
                [
                    ("Input", _tokens(usage.input_tokens)),
                    ("… read from cache", _tokens(usage.cache_read_input_tokens)),
                    ("… written to cache", _tokens(usage.cache_write_input_tokens)),
                    ("… written for an hour", _tokens(usage.cache_write_1h_input_tokens)),
                    ("… audio", _tokens(usage.input_audio_tokens)),
                    ("… images", _tokens(usage.input_image_tokens)),
                    ("Output", _tokens(usage.output_tokens)),
                    ("… reasoning", _tokens(usage.reasoning_output_tokens)),
                    ("… audio", _tokens(usage.output_audio_tokens)),
                    ("… images", _tokens(usage.output_image_tokens)),
                    ("Total, as stated", _tokens(usage.total_tokens)),
                ],
            ),
        ],
        "right": [
            _section(
                "For whom",
                [
                    ("Project", call.project),
                    ("Team", tags.team),
                    ("Agent", tags.agent),
                    ("Session", tags.session),
                    ("User", tags.user),
                    ("Feature", tags.feature),
                    ("Environment", tags.environment),
                    ("Service", one.service_name),
                    *((name, value) for name, value in sorted(tags.extra.items())),
                ],
            ),
            _section(
                "Cost, exact (USD)",
                [
                    ("Reported by the reply", formats.exact(one.reported_cost)),
                    ("Charged by the serving provider", formats.exact(one.upstream_cost)),
                    ("Listed by the observer", formats.exact(one.listed_cost)),
                    ("Basis", call.cost_basis.value),
                    ("Price version", call.price_version),
                ],
            ),
            _section(
                "Identity",
                [
                    ("Call", str(call.call_id)),
                    ("Response id", one.response_id),
                    ("Trace", one.trace_id),
                    ("Span", one.span_id),
                    ("Parent span", one.parent_span_id),
                    ("Key (SHA-256)", one.key_hash),
                    ("Seen by", one.source),
                    ("Wire format", one.wire_format),
                    ("Received (UTC)", formats.when(call.received_at)),
                    ("Revision", str(call.revision)),
                ],
                ids=True,
            ),
            _section(
                "Fingerprints (keyed hashes; no content is kept)",
                [
                    ("System prompt", fingerprint.system),
                    ("Prefix", fingerprint.prefix),
                    ("Last two messages", fingerprint.last),
                    ("Last message, masked", fingerprint.last_normalised),
                    ("Last role", fingerprint.last_role),
                    ("Messages", fingerprint.messages),
                    ("Tools asked for", tools),
                    ("Response", fingerprint.response),
                ]
                if fingerprint
                else [],
                ids=True,
            ),
            _section("Further facts", sorted(one.attributes.items()), ids=True),
        ],
    }


def _section(title: str, facts: list[tuple[str, Any]], *, ids: bool = False) -> Section:
    """Without the facts that are not known."""
    return Section(title, [(name, str(value), ids) for name, value in facts if value is not None and value != ""])


def _tokens(number: int | None) -> str | None:
    return None if number is None else formats.count(number)


def _change(before: Decimal | None, after: Decimal | None) -> Decimal | None:
    return None if before is None or after is None else after - before
