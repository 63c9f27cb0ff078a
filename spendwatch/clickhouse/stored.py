"""Rows of llm_calls, read back: the other direction of columns.py.

Invariant: what comes back of a call is normalise() of it. Never here: a connection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from spendwatch import money
from spendwatch.calls import (
    TAG_NAMES,
    CallStatus,
    CostBasis,
    Fingerprint,
    LLMCall,
    PricedCall,
    Tags,
    TokenUsage,
    ToolFingerprint,
)
from spendwatch.clickhouse.columns import MAX_COST_USD, TYPES, count, from_micros, id_bytes, small
from spendwatch.semconv import TAGS_EXTRA_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall(PricedCall):
    """A priced call as it stands in llm_calls. It is a PricedCall: `replace` some facts, raise the revision, insert."""

    call_id: int
    project: str
    """The slug of the ingest token's project; "" when there was none."""
    received_at: datetime

    def priced(self) -> PricedCall:
        """Only the facts, without where and when they were stored."""
        return PricedCall(**{field.name: getattr(self, field.name) for field in fields(PricedCall)})


_READ = {
    "started_at": "toUnixTimestamp64Micro(started_at)",
    "received_at": "toUnixTimestamp64Milli(received_at)",
}
_NAMES = [name.removesuffix("_offset") for name in TYPES]
SELECT = ", ".join(_READ.get(name, name) for name in _NAMES)
"""The select list whose rows read() takes."""


def normalise(call: PricedCall) -> PricedCall:
    """The call as a row can hold it: costs in whole pico-dollars, times in UTC, empty text as unknown.

    A number no call can have (a negative count, more than 2^32 tokens) becomes unknown instead of spoiling its batch.
    """
    seen = call.call
    tags = replace(
        seen.tags, **{name: getattr(seen.tags, name) or None for name in TAG_NAMES}, extra={**seen.tags.extra}
    )
    usage = replace(seen.usage, **{field.name: count(getattr(seen.usage, field.name)) for field in fields(TokenUsage)})
    texts: dict[str, Any] = {name: getattr(seen, name) or None for name in _OPTIONAL_TEXT}
    fingerprint = seen.fingerprint
    if fingerprint is not None:
        counts: dict[str, Any] = {
            name: count(getattr(fingerprint, name)) for name in ("last_length", "messages", "response_length")
        }
        fingerprint = replace(fingerprint, **counts, last_role=fingerprint.last_role or None)
        fingerprint = fingerprint if fingerprint != Fingerprint() else None
    clean = replace(
        seen,
        **texts,
        trace_id=_read_id(id_bytes(seen.trace_id, 16)),
        span_id=_read_id(id_bytes(seen.span_id, 8)),
        parent_span_id=_read_id(id_bytes(seen.parent_span_id, 8)) or None,
        started_at=seen.started_at.astimezone(UTC),
        duration_us=max(seen.duration_us, 0),
        time_to_first_chunk_us=None if (seen.time_to_first_chunk_us or 0) < 0 else seen.time_to_first_chunk_us,
        server_port=small(seen.server_port),
        http_status=small(seen.http_status),
        tags=tags,
        usage=usage,
        reported_cost=_usd(seen.reported_cost),
        upstream_cost=_usd(seen.upstream_cost),
        listed_cost=_usd(seen.listed_cost),
        cost_basis=_observed_basis(seen.reported_cost, seen.listed_cost),
        finish_reasons=tuple(reason.replace(",", " ") for reason in seen.finish_reasons if reason),
        fingerprint=fingerprint,
        attributes={**seen.attributes},
    )
    return PricedCall(
        call=clean,
        list_cost=_usd(call.list_cost),
        routed_cost=_usd(call.routed_cost),
        effective_cost=_usd(call.effective_cost),
        cost_basis=call.cost_basis,
        price_version=call.price_version or None,
        revision=call.revision,
    )


def read(row: Sequence[Any]) -> StoredCall:
    """The call in one row of a query for SELECT."""
    at = dict(zip(_NAMES, row, strict=True))
    attributes: dict[str, str] = at["attributes"]
    return StoredCall(
        call_id=at["call_id"],
        project=at["project"],
        received_at=from_micros(at["received_at"] * 1000),
        revision=at["revision"],
        list_cost=at["list_cost"],
        routed_cost=at["routed_cost"],
        effective_cost=at["effective_cost"],
        cost_basis=CostBasis(at["cost_basis"]),
        price_version=at["price_version"] or None,
        call=LLMCall(
            trace_id=_read_id(at["trace_id"]),
            span_id=_read_id(at["span_id"]),
            parent_span_id=_read_id(at["parent_span_id"]) or None,
            started_at=from_micros(at["started_at"]),
            duration_us=at["duration_us"],
            time_to_first_chunk_us=at["time_to_first_chunk_us"],
            provider_name=at["provider_name"],
            serving_provider=at["serving_provider"] or None,
            operation_name=at["operation_name"],
            request_model=at["request_model"] or None,
            response_model=at["response_model"] or None,
            response_id=at["response_id"] or None,
            server_address=at["server_address"] or None,
            server_port=at["server_port"] or None,
            usage=TokenUsage(**{field.name: at[field.name] for field in fields(TokenUsage)}),
            reported_cost=at["reported_cost"],
            upstream_cost=at["upstream_cost"],
            listed_cost=at["observer_listed_cost"],
            cost_basis=_observed_basis(at["reported_cost"], at["observer_listed_cost"]),
            price_version=at["observer_price_version"] or None,
            is_byok=at["is_byok"],
            service_tier=at["service_tier"] or None,
            status=CallStatus(at["status"]),
            http_status=at["http_status"] or None,
            error_type=at["error_type"] or None,
            finish_reasons=tuple(at["finish_reason"].split(",")) if at["finish_reason"] else (),
            streamed=at["streamed"],
            service_name=at["service_name"] or None,
            tags=Tags(
                team=at["team"] or None,
                project=at["project"] or None,
                agent=at["agent"] or None,
                session=at["session_id"] or None,
                user=at["user_id"] or None,
                feature=at["feature"] or None,
                environment=at["environment"] or None,
                extra={
                    name.removeprefix(TAGS_EXTRA_PREFIX): value
                    for name, value in attributes.items()
                    if name.startswith(TAGS_EXTRA_PREFIX)
                },
            ),
            key_hash=at["key_hash"] or None,
            fingerprint=_read_fingerprint(at),
            wire_format=at["wire_format"] or None,
            attributes={name: value for name, value in attributes.items() if not name.startswith(TAGS_EXTRA_PREFIX)},
            source=at["source"],
        ),
    )


_OPTIONAL_TEXT = (
    "serving_provider", "request_model", "response_model", "response_id", "server_address",
    "service_tier", "error_type", "service_name", "key_hash", "wire_format", "price_version",
)  # fmt: skip


def _read_fingerprint(at: Mapping[str, Any]) -> Fingerprint | None:
    found = Fingerprint(
        system=_hex(at["fingerprint_system"]),
        prefix=_hex(at["fingerprint_prefix"]),
        last=_hex(at["fingerprint_last"]),
        last_role=at["fingerprint_last_role"] or None,
        last_simhash=_hex(at["fingerprint_last_simhash"]),
        last_length=at["fingerprint_last_length"],
        last_is_error=at["fingerprint_last_is_error"],
        last_normalised=_hex(at["fingerprint_last_normalised"]),
        messages=at["fingerprint_messages"],
        tools=tuple(_tool(text) for text in at["fingerprint_tools"]),
        response=_hex(at["fingerprint_response"]),
        response_simhash=_hex(at["fingerprint_response_simhash"]),
        response_length=at["fingerprint_response_length"],
    )
    return None if found == Fingerprint() else found


def _tool(text: str) -> ToolFingerprint:
    name, arguments, simhash = text.rsplit(":", 2)
    return ToolFingerprint(name=name, arguments=arguments, arguments_simhash=simhash)


def _observed_basis(reported: Decimal | None, listed: Decimal | None) -> CostBasis:
    if reported is not None:
        return CostBasis.REPORTED
    return CostBasis.UNPRICED if listed is None else CostBasis.LISTED


def _usd(amount: Decimal | None) -> Decimal | None:
    return money.quantize(amount) if amount is not None and abs(amount) <= MAX_COST_USD else None


def _read_id(found: bytes) -> str:
    return found.hex() if any(found) else ""


def _hex(number: int) -> str | None:
    return f"{number:016x}" if number else None
