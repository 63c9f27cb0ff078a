"""Which facts of a call are its own, so that they are read for each span, and under which attribute names they stand.

All other attributes that mean anything decide what kind of call it is; spans that agree in all of them, and in which of
these facts they have at all, are read alike (groups.py). The names come from where they are defined: spendwatch.semconv
for our SDK's spans, the dialect table for others. Never here: how a value is encoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from clickhouse_connect.datatypes.base import ClickHouseType

from collectors.otlp import dialects, roles
from spendwatch import semconv
from spendwatch.clickhouse.columns import TYPES


class Kind(Enum):
    """How a fact is written."""

    TEXT = auto()
    LABEL = auto()
    """A text of which there are few."""
    COUNT = auto()
    AMOUNT = auto()
    """USD as an exact decimal text."""
    NUMBER = auto()
    """A double: an amount or a time."""
    HASH = auto()
    FLAG = auto()
    TOOLS = auto()


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact that differs from call to call. names: of its attribute, best first; a dialect has its own."""

    name: str
    kind: Kind
    column: str | None = None
    """Where it goes as it is; None for what something is made of first."""
    names: tuple[str, ...] = ()


_TAG_COLUMNS = {"session": "session_id", "user": "user_id"}
_COLUMN_KINDS = {
    "UInt64": Kind.HASH, "Nullable(UInt32)": Kind.COUNT, "Nullable(Bool)": Kind.FLAG,
    "LowCardinality(String)": Kind.LABEL, "String": Kind.TEXT,
}  # fmt: skip


def _kind(type_: ClickHouseType) -> Kind:
    return _COLUMN_KINDS[type_.insert_name]


def _tag(name: str) -> Fact:
    column = _TAG_COLUMNS.get(name, name)
    return Fact(name, _kind(TYPES[column]), column, semconv.names_of_tag(name))


RESPONSE_ID = Fact("response_id", Kind.TEXT, "response_id", (semconv.RESPONSE_ID,))
FIRST_CHUNK = Fact("first_chunk_s", Kind.NUMBER, None, (semconv.TIME_TO_FIRST_CHUNK,))

OWN: tuple[Fact, ...] = (
    RESPONSE_ID,
    FIRST_CHUNK,
    *(_tag(name) for name in ("session", "user", "team", "agent", "feature", "environment")),
    *(Fact(field, Kind.COUNT, None, (name,)) for name, field in semconv.USAGE.items()),
    *(Fact(field, Kind.AMOUNT, None, (name,)) for name, field in semconv.MONEY.items()),
    *(
        Fact(f"fingerprint_{field}", _kind(TYPES[f"fingerprint_{field}"]), f"fingerprint_{field}", (name,))
        for name, field in semconv.FINGERPRINT.items()
    ),
    Fact("fingerprint_tools", Kind.TOOLS, "fingerprint_tools", (semconv.FINGERPRINT_TOOLS,)),
)
"""Of our SDK's spans."""

COUNTS: Mapping[str, str] = {
    "input": "input_tokens",
    "output": "output_tokens",
    "total": "total_tokens",
    "cache_read": "cache_read",
    "cache_write": "cache_write",
    "cache_write_1h": "cache_write_1h",
    "reasoning": "reasoning",
}
"""usage.Counts' fields -> a dialect's facts."""
FOREIGN: tuple[Fact, ...] = (
    RESPONSE_ID,
    Fact("session", Kind.TEXT, "session_id"),
    Fact("user", Kind.TEXT, "user_id"),
    *(Fact(name, Kind.COUNT) for name in COUNTS.values()),
    Fact("cost", Kind.NUMBER),
    FIRST_CHUNK,
    Fact("first_chunk_ms", Kind.NUMBER),
)
"""Of the spans of other instrumentations."""


def _foreign_names() -> frozenset[str]:
    own = {fact.name for fact in FOREIGN}
    differing: set[str] = set()
    deciding = set(roles.MARKS)
    for dialect in dialects.DIALECTS:
        for fact, names in dialect.names.items():
            (differing if fact in own else deciding).update(names)
    # What differs for one dialect and decides for another is compared like all that decides.
    return frozenset(differing - deciding)


OWN_NAMES = frozenset(name for fact in OWN for name in fact.names)
FOREIGN_NAMES = _foreign_names()
RESPONSE_ID_NAMES = frozenset(RESPONSE_ID.names).union(
    *(dialect.names.get(RESPONSE_ID.name, ()) for dialect in dialects.DIALECTS)
)
