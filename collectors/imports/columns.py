"""A row of a file -> a call: columns named as in llm_calls, as in GenAI semconv, or as a mapping says.

What a column can't be is said with its name and value; what no mapping names is not read, so content stays where it is.
Pure. Never here: files, storing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from collectors.imports.mapping import Mapped, Mapping_
from collectors.otlp.providers import host_of, provider_by_model, provider_name
from collectors.otlp.unfolding import members
from collectors.otlp.usage import Counts, count, usage
from spendwatch import money
from spendwatch.calls import CallStatus, CostBasis, LLMCall, PricedCall, Tags, TokenUsage
from spendwatch.errors import ReadError
from spendwatch.prices import PriceBook, value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_TRUE, _FALSE = frozenset(("true", "1", "t", "yes")), frozenset(("false", "0", "f", "no", ""))
_MAX_TEXT = 1024
_MAX_ATTRIBUTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When a call may have started, half-open, and why not outside."""

    since: datetime
    until: datetime
    reason: str


def read(row: Mapping[str, object], mapping: Mapping_, *, project: str, window: Window, book: PriceBook) -> PricedCall:
    """The priced call of a row. Raises ReadError, saying which column is wrong and how, when it can't be one."""
    facts = _Row(mapping.apply(row))
    started_at = facts.time("started_at")
    if started_at is None:
        raise ReadError("started_at: expected when the call started, found nothing")
    if not window.since <= started_at < window.until:
        raise ReadError(f"started_at: expected {window.reason}, found {started_at.isoformat()}")
    call = _call(facts, mapping, started_at, project)
    return _priced(facts, call, book)


def _call(facts: "_Row", mapping: Mapping_, started_at: datetime, project: str) -> LLMCall:
    model = facts.text("request_model") or facts.text("response_model")
    response_id, address = facts.text("response_id"), facts.text("server_address")
    named = provider_name(facts.text("provider_name"), host_of(address), response_id)
    provider = named or provider_by_model(None, model)
    if provider is None:
        raise ReadError("provider_name: expected who was called, or a model that tells, found neither")
    trace_id, span_id = _ids(facts, mapping, response_id)
    usage_ = _usage(facts, mapping, provider)
    reported, listed = _costs(facts)
    return LLMCall(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=facts.hex("parent_span_id", 16),
        started_at=started_at,
        duration_us=facts.duration("duration_us") or 0,
        time_to_first_chunk_us=facts.duration("time_to_first_chunk_us"),
        provider_name=provider,
        serving_provider=facts.text("serving_provider"),
        operation_name=facts.text("operation_name") or "chat",
        request_model=facts.text("request_model"),
        response_model=facts.text("response_model"),
        response_id=response_id,
        server_address=address,
        server_port=facts.count("server_port"),
        usage=usage_,
        reported_cost=reported,
        upstream_cost=facts.money("upstream_cost"),
        listed_cost=listed,
        cost_basis=CostBasis.REPORTED
        if reported is not None
        else CostBasis.UNPRICED
        if listed is None
        else CostBasis.LISTED,
        price_version=facts.text("observer_price_version") if listed is not None else None,
        is_byok=facts.flag("is_byok"),
        service_tier=facts.text("service_tier"),
        status=_status(facts),
        http_status=facts.count("http_status"),
        error_type=facts.text("error_type"),
        finish_reasons=_reasons(facts),
        streamed=bool(facts.flag("streamed")),
        service_name=facts.text("service_name"),
        tags=Tags(
            team=facts.text("team"),
            project=project,
            agent=facts.text("agent"),
            session=facts.text("session_id"),
            user=facts.text("user_id"),
            feature=facts.text("feature"),
            environment=facts.text("environment"),
        ),
        key_hash=facts.text("key_hash"),
        wire_format=facts.text("wire_format"),
        attributes=_attributes(facts, mapping),
        source=facts.text("source") or "csv",
    )


def _ids(facts: "_Row", mapping: Mapping_, response_id: str | None) -> tuple[str, str]:
    """Trace and span id: the row's own, else made of what identifies it, so that it is the same call next time."""
    trace_id, span_id = facts.hex("trace_id", 32), facts.hex("span_id", 16)
    if trace_id and span_id:
        return trace_id, span_id
    identity = [facts.raw(name) for name in mapping.identity]
    if response_id is None and (not identity or any(part is None for part in identity)):
        raise ReadError(
            "response_id, or trace_id and span_id: expected one of them to tell this call from others, found neither. "
            "Name columns that together do (--identify-by)"
        )
    known = "\0".join(("imported", response_id or "", *map(str, identity)))
    digest = blake2b(known.encode("utf-8", "replace"), digest_size=24).hexdigest()
    return trace_id or digest[:32], span_id or digest[32:]


def _usage(facts: "_Row", mapping: Mapping_, provider: str) -> TokenUsage:
    counts = Counts(
        input=facts.count("input_tokens"),
        output=facts.count("output_tokens"),
        total=facts.count("total_tokens"),
        cache_read=facts.count("cache_read_input_tokens"),
        cache_write=facts.count("cache_write_input_tokens"),
        cache_write_1h=facts.count("cache_write_1h_input_tokens"),
        reasoning=facts.count("reasoning_output_tokens"),
        input_audio=facts.count("input_audio_tokens"),
        output_audio=facts.count("output_audio_tokens"),
        input_image=facts.count("input_image_tokens"),
        output_image=facts.count("output_image_tokens"),
    )
    if mapping.input_includes_cache is not True:
        return usage(counts, provider=provider, includes_cache=mapping.input_includes_cache)[0]
    return TokenUsage(
        input_tokens=counts.input,
        output_tokens=counts.output,
        total_tokens=counts.total,
        cache_read_input_tokens=counts.cache_read,
        cache_write_input_tokens=counts.cache_write,
        cache_write_1h_input_tokens=counts.cache_write_1h,
        reasoning_output_tokens=counts.reasoning,
        input_audio_tokens=counts.input_audio,
        output_audio_tokens=counts.output_audio,
        input_image_tokens=counts.input_image,
        output_image_tokens=counts.output_image,
    )


def _costs(facts: "_Row") -> tuple[Decimal | None, Decimal | None]:
    """(reported, listed by whoever wrote the file), USD. An effective cost counts as what its basis says."""
    reported, listed = facts.money("reported_cost"), facts.money("observer_listed_cost")
    effective = facts.money("effective_cost")
    if effective is not None and reported is None and not facts.flag("is_byok"):
        basis = facts.basis()
        if basis is CostBasis.REPORTED:
            reported = effective
        elif basis is not CostBasis.SETTLED and listed is None:
            listed = effective
    return reported, listed


def _priced(facts: "_Row", call: LLMCall, book: PriceBook) -> PricedCall:
    """Valued by the book. What a statement has settled stays as it is."""
    priced = value(call, book)
    effective = facts.money("effective_cost")
    if effective is not None and facts.basis() is CostBasis.SETTLED:
        priced = replace(priced, effective_cost=effective, cost_basis=CostBasis.SETTLED)
    return priced


def _status(facts: "_Row") -> CallStatus:
    if facts.flag("cancelled"):
        return CallStatus.ABORTED
    said = (facts.text("status") or "").lower()
    if not said:
        return CallStatus.ERROR if facts.text("error_type") else CallStatus.OK
    found = {"success": "ok", "failure": "error", "failed": "error", "cancelled": "aborted"}.get(said, said)
    try:
        return CallStatus(found)
    except ValueError:
        raise ReadError(f"status: expected ok, error or aborted, found {said[:60]!r}") from None


def _reasons(facts: "_Row") -> tuple[str, ...]:
    found = facts.raw("finish_reason")
    if isinstance(found, str):
        found = json_list(found) if found.startswith("[") else found.split(",")
    return tuple(str(reason) for reason in found if reason) if isinstance(found, list | tuple) else ()


def json_list(text: str) -> list[Any]:
    """A list written as JSON; empty when it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _attributes(facts: "_Row", mapping: Mapping_) -> dict[str, str]:
    out: dict[str, str] = {}
    found = facts.raw("attributes")
    if isinstance(found, str):
        # JSON, or a Map as ClickHouse writes it into CSV.
        found = members(found)
    pairs = found.items() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else ()
    for pair in list(pairs)[:_MAX_ATTRIBUTES]:
        if isinstance(pair, tuple) and len(pair) == 2:
            out[str(pair[0])[:200]] = str(pair[1])[:_MAX_TEXT]
    for name in mapping.attributes:
        text = facts.text(f"attributes.{name}")
        if text is not None:
            out[name] = text
    return out


class _Row:
    """The values of a row under our names. Empty text is unknown."""

    def __init__(self, values: Mapping[str, Mapped]) -> None:
        self._values = values

    def raw(self, name: str) -> Any:
        found = self._values.get(name)
        if found is None or found.value is None or found.value == "":
            return None
        return found.value

    def text(self, name: str) -> str | None:
        found = self.raw(name)
        return None if found is None else str(found)[:_MAX_TEXT].encode("utf-8", "replace").decode() or None

    def count(self, name: str) -> int | None:
        found = self.raw(name)
        if found is None:
            return None
        number = count(float(found) if isinstance(found, Decimal) else found)
        if number is None:
            raise self._wrong(name, "a whole number of at least 0", found)
        return number

    def money(self, name: str) -> Decimal | None:
        found = self.raw(name)
        if found is None:
            return None
        amount = money.parse_cost(found)
        if amount is None:
            raise self._wrong(name, f"an amount in USD from 0 to {money.MAX_COST_USD}", found)
        return amount

    def flag(self, name: str) -> bool | None:
        found = self.raw(name)
        if found is None or isinstance(found, bool):
            return found
        said = str(found).lower()
        if said in _TRUE or said in _FALSE:
            return said in _TRUE
        amount = money.parse(found)
        if amount is not None:
            return amount != 0
        raise self._wrong(name, "true or false", found)

    def hex(self, name: str, digits: int) -> str | None:
        """An id; None for one of zeros, which says that there is none. Parquet may hold its bytes."""
        raw = self.raw(name)
        found = raw.hex() if isinstance(raw, bytes) else self.text(name)
        if found is None:
            return None
        found = found.replace("-", "").lower()
        if len(found) != digits or set(found) - set("0123456789abcdef"):
            raise self._wrong(name, f"{digits} hex digits", found)
        return found if found.strip("0") else None

    def basis(self) -> CostBasis | None:
        found = self.text("cost_basis")
        if found is None:
            return None
        try:
            return CostBasis(found)
        except ValueError:
            raise self._wrong("cost_basis", "unpriced, listed, reported or settled", found) from None

    def duration(self, name: str) -> int | None:
        found = self.raw(name)
        if found is None:
            return None
        amount = money.parse(found)
        if amount is None or not 0 <= amount < 10**15:
            raise self._wrong(name, "a duration of at least 0", found)
        return int(amount * 1_000_000 // _PER_SECOND[self._unit(name, "us")])

    def time(self, name: str) -> datetime | None:
        found = self.raw(name)
        if found is None or isinstance(found, datetime):
            return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)
        number = money.parse(found)
        try:
            if number is not None:
                micros = int(number * 1_000_000 // _PER_SECOND[self._unit(name, "s")])
                return _EPOCH + timedelta(microseconds=micros)
            parsed = datetime.fromisoformat(str(found).strip().removesuffix(" UTC"))
        except (ValueError, OverflowError):
            raise self._wrong(name, "a time as ISO 8601 or a number since 1970", found) from None
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

    def _unit(self, name: str, usual: str) -> str:
        found = self._values[name].unit
        return usual if found is None else found

    @staticmethod
    def _wrong(name: str, expected: str, found: object) -> ReadError:
        return ReadError(f"{name}: expected {expected}, found {str(found)[:60]!r}")
