"""What the spans of one group have in common: one of them read the general way.

A template knows the call that its exemplar speaks of and the row that it makes, where each fact of a span's own is to
be found, and what decides the group's costs. Groups that don't go with that (nothing says that they can't) are left to
the general way, span by span. Never here: arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from collectors.otlp import foreign as foreign
from collectors.otlp.bulk.facts import FOREIGN, OWN, Fact, Kind
from collectors.otlp.call import Reader
from collectors.otlp.dialects import Dialect, dialect_of
from collectors.otlp.spans import Rejected, Span
from collectors.otlp.usage import count
from spendwatch.calls import CallStatus, LLMCall, PricedCall
from spendwatch.clickhouse.rows import row_of
from spendwatch.prices import PriceBook, value
from spendwatch.prices.tariff import Tariff, terms


@dataclass(slots=True)
class Template:
    """call None: the group's spans are no calls. chosen: fact -> the attribute of the span's own that it is read from.

    is_plain False: each span of the group is read by itself.
    """

    call: LLMCall | None
    is_plain: bool = True
    chosen: Mapping[str, str] = field(default_factory=dict)
    others: "Others | None" = None
    steps: dict[tuple[object, ...], tuple[int, ...]] = field(default_factory=dict)
    cells: dict[tuple[object, ...], "Cell | None"] = field(default_factory=dict)


@dataclass(slots=True)
class Others:
    """Another instrumentation's spans: what is made of their figures is decided by the dialect, span by span."""

    dialect: Dialect
    facts: foreign.Facts
    provider: str
    needs_tokens: bool
    """Whether the counts are ever other than they are sent, also without cache and reasoning."""
    needs_first_chunk: bool


@dataclass(slots=True)
class Cell:
    """The costs of those calls of a group that share the day, the snapshot of prices and the step of input tokens."""

    priced: PricedCall
    tariff: Tariff | None
    """None: the calls cost nothing."""
    row: tuple[Any, ...]
    """The exemplar's, in the order of the columns."""


class RowFacts(foreign.Facts):
    """The facts of one span of a group: its own figures, else those of the exemplar."""

    def __init__(self, exemplar: foreign.Facts, own: Mapping[str, object]) -> None:
        self.attributes = exemplar.attributes
        self._exemplar = exemplar
        self._own = own

    def any(self, fact: str) -> object:
        if fact in self._own:
            return self._own[fact]
        return self._exemplar.any(fact)

    def count(self, fact: str) -> int | None:
        if fact in self._own:
            found = self._own[fact]
            return found if isinstance(found, int) else None
        return self._exemplar.count(fact)


class Exemplar(foreign.Facts):
    """The facts of a group's exemplar, each looked up once."""

    def __init__(self, span: Span, dialect: Dialect) -> None:
        super().__init__(span, dialect)
        self._any: dict[str, object] = {}
        self._count: dict[str, int | None] = {}

    def any(self, fact: str) -> object:
        if fact not in self._any:
            self._any[fact] = super().any(fact)
        return self._any[fact]

    def count(self, fact: str) -> int | None:
        if fact not in self._count:
            self._count[fact] = super().count(fact)
        return self._count[fact]


def template(span: Span, reader: Reader, *, own: bool, sent: frozenset[str], may_differ: frozenset[str]) -> Template:
    """The template of the group that the span is of. sent: the attributes that its spans have."""
    found = reader.read(span)
    if found is None:
        return Template(None)
    if isinstance(found, Rejected):
        return Template(None, is_plain=False)
    if own:
        chosen = {
            fact.name: name for fact in OWN if (name := _first(span.attributes, fact, sent, may_differ)) is not None
        }
        return Template(found, chosen=chosen)
    return _of_others(span, found, sent, may_differ)


def _of_others(span: Span, call: LLMCall, sent: frozenset[str], may_differ: frozenset[str]) -> Template:
    dialect = dialect_of(span)
    assert dialect is not None  # noqa: S101  # it made the call
    facts = Exemplar(span, dialect)
    chosen: dict[str, str] = {}
    for fact in FOREIGN:
        name = _first(facts.attributes, replace(fact, names=dialect.names.get(fact.name, ())), sent, may_differ)
        if name is not None:
            chosen[fact.name] = name
    is_plain = not dialect.replayed(facts.attributes) and call.upstream_cost is None
    # A charge makes an aborted call one that failed.
    is_plain = is_plain and (call.status is CallStatus.OK or "cost" not in chosen)
    return Template(
        call,
        is_plain=is_plain,
        chosen=chosen,
        others=Others(
            dialect=dialect,
            facts=facts,
            provider=call.provider_name,
            needs_tokens=any(facts.count(fact) is not None for fact in foreign.PARTIAL_COUNTS),
            needs_first_chunk=any(facts.any(fact) is not None for fact in foreign.FIRST_CHUNK),
        ),
    )


def _first(
    attributes: Mapping[str, object], fact: Fact, sent: frozenset[str], may_differ: frozenset[str]
) -> str | None:
    """The attribute that the fact is read from, None when there is none or it is alike in the whole group."""
    for name in fact.names:
        if name in may_differ:
            # Whatever the exemplar has in it: the others may have what they should, and it is odd if it has not.
            if name in sent:
                return name
            continue
        found = attributes.get(name)
        if found is not None and found != "" and (fact.kind is not Kind.COUNT or count(found) is not None):
            return None
    return None


def cell(call: LLMCall, book: PriceBook) -> Cell | None:
    """What decides the costs of calls like this one; None when they are to be valued one by one."""
    found = terms(call, book)
    if found is None or (call.is_byok and call.reported_cost is not None and call.upstream_cost is None):
        return None
    tariff = None if found.free is not None else found.tariff(call.usage.input_tokens or 0)
    if tariff is None and found.free is None:
        return None
    priced = value(call, book)
    return Cell(priced, tariff, row_of(priced, received_at=call.started_at))
