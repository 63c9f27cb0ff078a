"""The columns of llm_calls and the one translation between them and a PricedCall, in both directions.

Reading back what was written gives an equal call (once normalised). Empty text and 0 stand for "unknown" in columns
that are not Nullable. Money goes out as whole pico-dollars, times as whole microseconds since 1970, fingerprints as
64-bit numbers, trace and span ids as bytes. A `…_offset` column holds how far a figure is from the one it mostly equals
(effective_cost; input plus output tokens), so that it takes no space; the table gives the figure itself under its plain
name. Never here: a connection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from operator import attrgetter
from typing import Any

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.numeric import Decimal as DecimalType
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.common import write_array
from clickhouse_connect.driver.insert import InsertContext

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
from spendwatch.semconv import TAGS_EXTRA_PREFIX

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_UINT32 = 2**32 - 1
_MAX_COST_USD = Decimal(999_999)
# Round-half-even, with digits to spare for every cost; only its methods are used, never as a thread's context.
_EXACT = Context(prec=50)


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


class _PicoUsd(DecimalType, registered=False):
    """Nullable(Decimal(18, 12)) whose values are already whole pico-dollars: no Decimal is built for the wire."""

    def _write_column_binary(self, column: Sequence[int | None], dest: bytearray, ctx: InsertContext) -> None:
        write_array("q", [value or 0 for value in column], dest, ctx.column_name)


_COUNT = get_from_name("Nullable(UInt32)")
_FLAG = get_from_name("Nullable(Bool)")
_HASH = get_from_name("UInt64")
_LABEL = get_from_name("LowCardinality(String)")
_TEXT = get_from_name("String")
_SPAN = get_from_name("FixedString(8)")
_MONEY = _PicoUsd(get_from_name("Nullable(Decimal(18, 12))").type_def, 18, 64, 12)

TYPES: Mapping[str, ClickHouseType] = {
    "call_id": _HASH,
    "revision": get_from_name("UInt32"),
    "is_deleted": get_from_name("UInt8"),
    "started_at": get_from_name("DateTime64(6, 'UTC')"),
    "received_at": get_from_name("DateTime64(3, 'UTC')"),
    "project": _LABEL,
    "session_id": _TEXT,
    # Above: where a row stands. Below: the facts, in the order of values().
    "duration_us": get_from_name("UInt64"),
    "time_to_first_chunk_us": get_from_name("Nullable(UInt64)"),
    "source": _LABEL,
    "trace_id": get_from_name("FixedString(16)"),
    "span_id": _SPAN,
    "parent_span_id": _SPAN,
    "response_id": _TEXT,
    "environment": _LABEL,
    "team": _LABEL,
    "service_name": _LABEL,
    "agent": _LABEL,
    "feature": _LABEL,
    "user_id": _TEXT,
    "key_hash": _LABEL,
    "provider_name": _LABEL,
    "serving_provider": _LABEL,
    "operation_name": _LABEL,
    "request_model": _LABEL,
    "response_model": _LABEL,
    "server_address": _LABEL,
    "server_port": get_from_name("UInt16"),
    "service_tier": _LABEL,
    "wire_format": _LABEL,
    "status": _LABEL,
    "http_status": get_from_name("UInt16"),
    "error_type": _LABEL,
    "finish_reason": _LABEL,
    "streamed": get_from_name("Bool"),
    **{field.name: _COUNT for field in fields(TokenUsage) if field.name != "total_tokens"},
    "total_tokens_offset": get_from_name("Nullable(Int64)"),
    "list_cost": _MONEY,
    "routed_cost": _MONEY,
    "effective_cost": _MONEY,
    "upstream_cost_offset": _MONEY,
    "reported_cost_offset": _MONEY,
    "observer_listed_cost_offset": _MONEY,
    "cost_basis": _LABEL,
    "price_version": _LABEL,
    "observer_price_version": _LABEL,
    "is_byok": _FLAG,
    "fingerprint_system": _HASH,
    "fingerprint_prefix": _HASH,
    "fingerprint_last": _HASH,
    "fingerprint_last_role": _LABEL,
    "fingerprint_last_simhash": _HASH,
    "fingerprint_last_length": _COUNT,
    "fingerprint_last_is_error": _FLAG,
    "fingerprint_last_normalised": _HASH,
    "fingerprint_messages": _COUNT,
    "fingerprint_tools": get_from_name("Array(String)"),
    "fingerprint_response": _HASH,
    "fingerprint_response_simhash": _HASH,
    "fingerprint_response_length": _COUNT,
    "attributes": get_from_name("Map(LowCardinality(String), String)"),
}
"""Column -> its type on the wire, in the order in which rows are written and read. stored_at is the engine's own."""

_READ = {
    "started_at": "toUnixTimestamp64Micro(started_at)",
    "received_at": "toUnixTimestamp64Milli(received_at)",
}
_NAMES = [name.removesuffix("_offset") for name in TYPES]
SELECT = ", ".join(_READ.get(name, name) for name in _NAMES)
"""The select list whose rows read() takes."""


def micros(time: datetime) -> int:
    """Whole microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(count: int) -> datetime:
    """The aware UTC time of a count of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=count)


def normalise(call: PricedCall) -> PricedCall:
    """The call as a row can hold it: costs in whole pico-dollars, times in UTC, empty text as unknown.

    A number no call can have (a negative count, more than 2^32 tokens) becomes unknown instead of spoiling its batch.
    """
    seen = call.call
    tags = replace(
        seen.tags, **{name: getattr(seen.tags, name) or None for name in TAG_NAMES}, extra={**seen.tags.extra}
    )
    usage = replace(seen.usage, **{field.name: _count(getattr(seen.usage, field.name)) for field in fields(TokenUsage)})
    texts: dict[str, Any] = {name: getattr(seen, name) or None for name in _OPTIONAL_TEXT}
    fingerprint = seen.fingerprint
    if fingerprint is not None:
        counts: dict[str, Any] = {
            name: _count(getattr(fingerprint, name)) for name in ("last_length", "messages", "response_length")
        }
        fingerprint = replace(fingerprint, **counts, last_role=fingerprint.last_role or None)
        fingerprint = fingerprint if fingerprint != Fingerprint() else None
    clean = replace(
        seen,
        **texts,
        trace_id=_read_id(_id(seen.trace_id, 16)),
        span_id=_read_id(_id(seen.span_id, 8)),
        parent_span_id=_read_id(_id(seen.parent_span_id, 8)) or None,
        started_at=seen.started_at.astimezone(UTC),
        duration_us=max(seen.duration_us, 0),
        time_to_first_chunk_us=None if (seen.time_to_first_chunk_us or 0) < 0 else seen.time_to_first_chunk_us,
        server_port=_small(seen.server_port),
        http_status=_small(seen.http_status),
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


def values(priced: PricedCall) -> tuple[Any, ...]:
    """The facts of a normalised call as column values, in the order of TYPES after its first seven names."""
    call, tags, usage = priced.call, priced.call.tags, priced.call.usage
    print_ = call.fingerprint or Fingerprint()
    effective = _pico(priced.effective_cost)
    return (
        call.duration_us,
        call.time_to_first_chunk_us,
        call.source,
        _id(call.trace_id, 16),
        _id(call.span_id, 8),
        _id(call.parent_span_id, 8),
        call.response_id or "",
        tags.environment or "",
        tags.team or "",
        call.service_name or "",
        tags.agent or "",
        tags.feature or "",
        tags.user or "",
        call.key_hash or "",
        call.provider_name,
        call.serving_provider or "",
        call.operation_name,
        call.request_model or "",
        call.response_model or "",
        call.server_address or "",
        call.server_port or 0,
        call.service_tier or "",
        call.wire_format or "",
        call.status.value,
        call.http_status or 0,
        call.error_type or "",
        ",".join(call.finish_reasons),
        call.streamed,
        *_counts(_usage_counts(usage)),
        _pico(priced.list_cost),
        _pico(priced.routed_cost),
        effective,
        _offset(_pico(call.upstream_cost), effective),
        _offset(_pico(call.reported_cost), effective),
        _offset(_pico(call.listed_cost), effective),
        priced.cost_basis.value,
        priced.price_version or "",
        call.price_version or "",
        call.is_byok,
        _number(print_.system),
        _number(print_.prefix),
        _number(print_.last),
        print_.last_role or "",
        _number(print_.last_simhash),
        print_.last_length,
        print_.last_is_error,
        _number(print_.last_normalised),
        print_.messages,
        [f"{tool.name}:{tool.arguments}:{tool.arguments_simhash}" for tool in print_.tools],
        _number(print_.response),
        _number(print_.response_simhash),
        print_.response_length,
        {**call.attributes, **{TAGS_EXTRA_PREFIX + name: value for name, value in tags.extra.items()}},
    )


_NO_FINGERPRINT: tuple[Any, ...] = (0, 0, 0, "", 0, None, None, 0, None, [], 0, 0, None)
_usage_counts = attrgetter(*(field.name for field in fields(TokenUsage)))


def first_values(priced: PricedCall) -> tuple[Any, ...]:
    """values(normalise(priced)) in one step, for the many calls that meet nothing to be merged with."""
    call = priced.call
    tags, counts, seen = call.tags, _usage_counts(call.usage), call.fingerprint
    known = tuple(filter(None, counts))
    if known and not (min(known) > 0 and max(known) <= _MAX_UINT32):
        counts = tuple(map(_count, counts))
    chunk, byok = call.time_to_first_chunk_us, call.is_byok
    reported, reasons, extra = call.reported_cost, call.finish_reasons, tags.extra
    reported_pico = _whole_pico(reported)
    effective = reported_pico if priced.effective_cost is reported else _whole_pico(priced.effective_cost)
    if seen is None:
        prints = _NO_FINGERPRINT
    else:
        prints = (
            _number(seen.system),
            _number(seen.prefix),
            _number(seen.last),
            seen.last_role or "",
            _number(seen.last_simhash),
            _count(seen.last_length),
            seen.last_is_error,
            _number(seen.last_normalised),
            _count(seen.messages),
            [f"{tool.name}:{tool.arguments}:{tool.arguments_simhash}" for tool in seen.tools] if seen.tools else [],
            _number(seen.response),
            _number(seen.response_simhash),
            _count(seen.response_length),
        )
    return (
        call.duration_us if call.duration_us > 0 else 0,
        None if chunk is None or chunk < 0 else chunk,
        call.source,
        _id(call.trace_id, 16),
        _id(call.span_id, 8),
        _id(call.parent_span_id, 8),
        call.response_id or "",
        tags.environment or "",
        tags.team or "",
        call.service_name or "",
        tags.agent or "",
        tags.feature or "",
        tags.user or "",
        call.key_hash or "",
        call.provider_name,
        call.serving_provider or "",
        call.operation_name,
        call.request_model or "",
        call.response_model or "",
        call.server_address or "",
        _small(call.server_port) or 0,
        call.service_tier or "",
        call.wire_format or "",
        call.status._value_,
        _small(call.http_status) or 0,
        call.error_type or "",
        ",".join(reason.replace(",", " ") for reason in reasons if reason) if reasons else "",
        call.streamed,
        *_counts(counts),
        _whole_pico(priced.list_cost),
        _whole_pico(priced.routed_cost),
        effective,
        _offset(_whole_pico(call.upstream_cost), effective),
        _offset(reported_pico, effective),
        _offset(_whole_pico(call.listed_cost), effective),
        priced.cost_basis._value_,
        priced.price_version or "",
        call.price_version or "",
        byok,
        *prints,
        {**call.attributes, **{TAGS_EXTRA_PREFIX + name: value for name, value in extra.items()}}
        if extra
        else {**call.attributes},
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


def _count(value: int | None) -> int | None:
    return value if value is None or 0 <= value <= _MAX_UINT32 else None


def _small(value: int | None) -> int | None:
    return value if value is not None and 0 < value < 2**16 else None


def _usd(amount: Decimal | None) -> Decimal | None:
    return money.quantize(amount) if amount is not None and abs(amount) <= _MAX_COST_USD else None


def _pico(amount: Decimal | None) -> int | None:
    return None if amount is None else money.pico(amount)


def _whole_pico(amount: Decimal | None) -> int | None:
    """_pico(_usd(amount)) without a context for each of a call's amounts."""
    if amount is None or not -_MAX_COST_USD <= amount <= _MAX_COST_USD:
        return None
    return int(_EXACT.scaleb(_EXACT.quantize(amount, money.PICO_USD), 12))


def _counts(counts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """A TokenUsage's counts as columns: the stated total last, as its offset."""
    read, written, total, *parts = counts
    return read, written, *parts, None if total is None else total - (read or 0) - (written or 0)


def _offset(amount: int | None, base: int | None) -> int | None:
    return None if amount is None else amount - (base or 0)


def _id(text: str | None, size: int) -> bytes:
    """The bytes of a trace or span id; zeros when there is none or it is not one."""
    if text and len(text) == 2 * size:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    return bytes(size)


def _read_id(found: bytes) -> str:
    return found.hex() if any(found) else ""


def _number(text: str | None) -> int:
    """A fingerprint's 64 bits; 0 when there is none or it is not such a number."""
    try:
        return int(text, 16) if text and len(text) <= 16 else 0
    except ValueError:
        return 0


def _hex(number: int) -> str | None:
    return f"{number:016x}" if number else None
