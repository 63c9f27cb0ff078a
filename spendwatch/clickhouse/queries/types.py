"""The answers: what each question of this package returns. Plain values; money is Decimal USD, times are aware UTC."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from spendwatch.clickhouse.stored import StoredCall


class Step(StrEnum):
    """The length of a point of a series: a UTC hour or day."""

    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What some calls cost together.

    cost: the effective cost of the calls whose cost is known. list_cost: likewise at list price. unpriced_calls: calls
    with no known cost; they are in `calls` and in the tokens, and not in `cost`.
    """

    cost: Decimal
    list_cost: Decimal
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class SpendRow:
    """The spend of one group; key holds a value for each dimension asked for, "" where it is unknown."""

    key: tuple[str, ...]
    spend: Spend


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """The spend of one step of time, of one value of the dimension asked for ("" without one)."""

    start: datetime
    key: str
    cost: Decimal
    calls: int


@dataclass(frozen=True, slots=True)
class CallsPage:
    """One page of calls, newest first, and how many there are on all pages."""

    calls: list[StoredCall]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCell:
    """What we recorded of one cell of a provider's statement: a UTC day (of the call's start), model, endpoint, key.

    model: the one the reply named, else the one asked for. endpoint: the serving provider. cost: effective costs that
    are known. upstream_cost: what serving providers charge, known ones. byok_cost: the part of it that they charge
    directly. failed_calls: errors without a reply's id or a cost, which no statement counts. Tokens: known ones.
    """

    day: date
    model: str
    endpoint: str
    key_hash: str
    calls: int
    cost: Decimal
    upstream_cost: Decimal
    input_tokens: int
    output_tokens: int
    reasoning_output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    byok_calls: int
    unpriced_calls: int
    aborted_calls: int
    error_calls: int
    byok_cost: Decimal
    failed_calls: int
