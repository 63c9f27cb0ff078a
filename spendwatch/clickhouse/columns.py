"""The columns of llm_calls, and what a PricedCall puts into them.

Empty text and 0 stand for "unknown" in columns
that are not Nullable. Money goes out as whole pico-dollars, times as whole microseconds since 1970, fingerprints as
64-bit numbers, trace and span ids as bytes. A `…_offset` column holds how far a figure is from the one it mostly equals
(effective_cost; input plus output tokens), so that it takes no space; the table gives the figure itself under its plain
name. Never here: a connection, reading back (stored.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
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
    PricedCall,
    TokenUsage,
)
from spendwatch.semconv import TAGS_EXTRA_PREFIX

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_UINT32 = 2**32 - 1
MAX_COST_USD = Decimal(999_999)
MAX_COST_PICO = int(MAX_COST_USD) * 10**12
"""More is no cost: it becomes unknown."""
# Round-half-even, with digits to spare for every cost; only its methods are used, never as a thread's context.
_EXACT = Context(prec=50)


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

OFFSETS: Mapping[str, tuple[str, ...]] = {
    "total_tokens_offset": ("input_tokens", "output_tokens"),
    **dict.fromkeys(
        ("upstream_cost_offset", "reported_cost_offset", "observer_listed_cost_offset"), ("effective_cost",)
    ),
}
"""The columns that hold how far a figure is from the sum of these, where unknown ones count as 0."""


def micros(time: datetime) -> int:
    """Whole microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(count: int) -> datetime:
    """The aware UTC time of a count of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=count)


_NO_FINGERPRINT: tuple[Any, ...] = (0, 0, 0, "", 0, None, None, 0, None, [], 0, 0, None)
_usage_counts = attrgetter(*(field.name for field in fields(TokenUsage)))


def values(priced: PricedCall) -> tuple[Any, ...]:
    """The facts of a call as column values, in the order of TYPES after its first seven names.

    A call gives the same values as normalise() of it; here nothing is made of it on the way.
    """
    call = priced.call
    tags, counts, seen = call.tags, _usage_counts(call.usage), call.fingerprint
    known = tuple(filter(None, counts))
    if known and not (min(known) > 0 and max(known) <= _MAX_UINT32):
        counts = tuple(map(count, counts))
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
            count(seen.last_length),
            seen.last_is_error,
            _number(seen.last_normalised),
            count(seen.messages),
            [f"{tool.name}:{tool.arguments}:{tool.arguments_simhash}" for tool in seen.tools] if seen.tools else [],
            _number(seen.response),
            _number(seen.response_simhash),
            count(seen.response_length),
        )
    return (
        call.duration_us if call.duration_us > 0 else 0,
        None if chunk is None or chunk < 0 else chunk,
        call.source,
        id_bytes(call.trace_id, 16),
        id_bytes(call.span_id, 8),
        id_bytes(call.parent_span_id, 8),
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
        small(call.server_port) or 0,
        call.service_tier or "",
        call.wire_format or "",
        call.status._value_,
        small(call.http_status) or 0,
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


def count(value: int | None) -> int | None:
    """The count, None for what can be none."""
    return value if value is None or 0 <= value <= _MAX_UINT32 else None


def small(value: int | None) -> int | None:
    """A port or an HTTP status, None for what can be none."""
    return value if value is not None and 0 < value < 2**16 else None


def _whole_pico(amount: Decimal | None) -> int | None:
    """_usd(amount) in pico-dollars, without a context for each of a call's amounts."""
    if amount is None or not -MAX_COST_USD <= amount <= MAX_COST_USD:
        return None
    return int(_EXACT.scaleb(_EXACT.quantize(amount, money.PICO_USD), 12))


def _counts(counts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """A TokenUsage's counts as columns: the stated total last, as its offset."""
    read, written, total, *parts = counts
    return read, written, *parts, None if total is None else total - (read or 0) - (written or 0)


def _offset(amount: int | None, base: int | None) -> int | None:
    return None if amount is None else amount - (base or 0)


def id_bytes(text: str | None, size: int) -> bytes:
    """The bytes of a trace or span id; zeros when there is none or it is not one."""
    if text and len(text) == 2 * size:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    return bytes(size)


def _number(text: str | None) -> int:
    """A fingerprint's 64 bits; 0 when there is none or it is not such a number."""
    try:
        return int(text, 16) if text and len(text) <= 16 else 0
    except ValueError:
        return 0
