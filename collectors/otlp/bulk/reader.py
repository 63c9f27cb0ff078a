"""A request's spans -> the calls among them as rows, but for the spans that are out of the ordinary.

Invariant: a row is byte for byte what the general way makes of the span. Whatever is odd about a span (an encoding that
no encoder uses, an attribute sent twice, a figure of the wrong type, prices that change by the hour) makes it one of
those that are left; nothing is refused here. One thread reads at a time. Never here: the general way itself.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import numpy as np

from collectors.otlp import dialects, foreign
from collectors.otlp.bulk import build, costs, own_facts, values
from collectors.otlp.bulk.attributes import Attributes, Names
from collectors.otlp.bulk.facts import COUNTS, FOREIGN, FOREIGN_NAMES, OWN, OWN_NAMES, Fact
from collectors.otlp.bulk.fields import Fields, Part, fields
from collectors.otlp.bulk.figures import Figure
from collectors.otlp.bulk.groups import Values, group
from collectors.otlp.bulk.octets import Body, Index, Mask
from collectors.otlp.bulk.own_facts import Found, figure
from collectors.otlp.bulk.templates import RowFacts, Template, template
from collectors.otlp.call import EARLIEST_NS, Reader
from collectors.otlp.sections import Section
from collectors.otlp.spans import Span
from spendwatch import money, semconv
from spendwatch.calls import LLMCall, PricedCall, TokenUsage
from spendwatch.clickhouse.table import Numbers, Table, Texts
from spendwatch.prices import PriceBook

MIN_SPANS = 24
"""Fewer are read sooner one by one."""
_MAX_SPANS = 2048
"""Read at a time: what is known of them fits into the processor's cache."""
_MAX_TEMPLATES = 5_000
_USAGE_FACTS = {
    "input_tokens": "input_tokens", "output_tokens": "output_tokens", "total_tokens": "total_tokens",
    "cache_read_input_tokens": "cache_read", "cache_write_input_tokens": "cache_write",
    "cache_write_1h_input_tokens": "cache_write_1h", "reasoning_output_tokens": "reasoning",
}  # fmt: skip
"""TokenUsage's fields -> a dialect's facts."""


@dataclass(slots=True)
class Result:
    """ignored: spans that are no calls. left: the numbers of those to be read the general way."""

    tables: list[Table]
    ignored: int
    left: list[int]


@dataclass(slots=True)
class Request:
    """What holds for all spans of one request."""

    project: str
    largest: int
    """Bytes of a span; larger ones are left."""
    reader: Reader
    book: PriceBook
    span: Callable[[int], Span]
    """A span by its number, decoded the general way."""
    call: Callable[[int], PricedCall]
    """The call that a span speaks of, read and valued the general way."""


class BulkReader:
    """Reads requests one after the other, and remembers what their spans have in common."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names = Names(dialects.wanted)
        self._values = Values()
        self._templates: dict[tuple[object, ...], Template] = {}
        self._book: PriceBook | None = None

    def read(self, raw: bytes, sections: Sequence[Section], request: Request) -> Result:
        """Read the spans of all sections, numbered in their order. Raises ReadError as the general way does."""
        result = Result([], 0, [])
        places = np.array([place for section in sections for place in section.places], np.int64).reshape(-1, 2)
        whose = np.repeat(np.arange(len(sections)), [len(section.places) for section in sections])
        with self._lock:
            body = Body(raw)
            for start in range(0, len(places), _MAX_SPANS):
                some = slice(start, start + _MAX_SPANS)
                self._forget(request.book)
                part = _Part(body, request, sections, whose[some], places[some, 0], places[some, 1], start)
                self._read(part, result)
        result.left.sort()
        return result

    def _forget(self, book: PriceBook) -> None:
        if self._values.clear_when_full() or book is not self._book or len(self._templates) > _MAX_TEMPLATES:
            self._templates.clear()
            self._book = book

    def _read(self, part: "_Part", result: Result) -> None:
        found = fields(part.body, part.starts, part.ends)
        part.look(found)
        attributes = self._names.find(part.body, found)
        basis = attributes.row_of(semconv.COST_BASIS)
        sent = np.zeros(part.count, np.bool_) if basis is None else attributes.places[basis] >= 0
        own = sent & np.array([one.scope == semconv.SCOPE_NAME for one in part.sections]).take(part.whose)
        if basis is not None:
            # Whether it is a text decides whose span it is.
            at = attributes.places[basis][own]
            kinds = values.kind(part.body, attributes.starts[at], attributes.lengths[at])
            found.odd[np.flatnonzero(own)[kinds != values.TEXT]] = True
        for rows, is_own in ((own, True), (~own, False)):
            spans = np.flatnonzero(rows & ~found.odd)
            if spans.size:
                self._read_alike(part, found, attributes, spans, is_own, result)
        result.left += (part.first + np.flatnonzero(found.odd)).tolist()

    def _read_alike(
        self, part: "_Part", found: Fields, attributes: Attributes, spans: Index, own: bool, result: Result
    ) -> None:
        """Our SDK's spans, or those of others."""
        attributes = replace(attributes, places=attributes.places[:, spans])
        odd = np.zeros(len(spans), np.bool_)
        given = {"section": part.whose[spans] + 1, "failed": part.failed[spans]}
        if not own:
            given["name"] = 1 + self._values.seen.codes(part.body, found.name.starts[spans], found.name.lengths[spans])
            odd |= given["name"] == 0
        names = OWN_NAMES if own else FOREIGN_NAMES
        groups = group(
            part.body,
            attributes,
            self._values,
            decides=semconv.reads if own else dialects.wanted,
            differs=names.__contains__,
            given=given,
            odd=odd,
        )
        templates = [
            self._template(part, key, int(spans[first]), own, names)
            for key, first in zip(groups.keys, groups.firsts.tolist(), strict=True)
        ]
        odd |= np.array([not one.is_plain for one in templates]).take(groups.number)
        calls = np.array([one.call is not None for one in templates]).take(groups.number)
        result.ignored += int((~calls & ~odd).sum())
        found.odd[spans[odd]] = True
        rows = np.flatnonzero(calls & ~odd)
        if not rows.size:
            return
        # From here on the spans that make a call; groups without any are of no matter.
        used, number = np.unique(groups.number[rows], return_inverse=True)
        calls_ = _Calls(
            part=part,
            found=found,
            attributes=replace(attributes, places=attributes.places[:, rows]),
            spans=spans[rows],
            templates=[templates[one] for one in used.tolist()],
            group=number,
            odd=np.zeros(len(rows), np.bool_),
        )
        table = calls_.table(self._values, OWN if own else FOREIGN, names.__contains__)
        found.odd[calls_.spans[calls_.odd]] = True
        if table is not None:
            result.tables.append(table)

    def _template(
        self, part: "_Part", key: tuple[tuple[str, int], ...], span: int, own: bool, may_differ: frozenset[str]
    ) -> Template:
        section = part.sections[part.whose[span]]
        place = (own, part.request.project, section.scope, repr(section.resource), tuple(key))
        known = self._templates.get(place)
        if known is None:
            decoded = part.request.span(part.first + span)
            sent = frozenset(str(name) for name, _ in key)
            known = template(decoded, part.request.reader, own=own, sent=sent, may_differ=may_differ)
            self._templates[place] = known
        return known


class _Part:
    """Some thousand spans of a request, numbered from `first` on."""

    def __init__(
        self,
        body: Body,
        request: Request,
        sections: Sequence[Section],
        whose: Index,
        starts: Index,
        ends: Index,
        first: int,
    ) -> None:
        self.body = body
        self.request = request
        self.sections = sections
        self.whose = whose
        self.starts = starts
        self.ends = ends
        self.first = first
        self.count = len(starts)

    def look(self, found: Fields) -> None:
        """Read ids, times and status; spans that have not got them plain are odd."""
        odd, body = found.odd, self.body
        odd |= self.ends - self.starts > self.request.largest
        odd |= found.trace_id.lengths != 16
        odd |= found.span_id.lengths != 8
        trace = np.where(odd, 0, found.trace_id.starts)
        odd |= (body.word(trace) | body.word(trace + 8)) == 0
        odd |= body.word(np.where(odd, 0, found.span_id.starts)) == 0
        parent = found.parent
        parent.starts[(parent.lengths != 8) | (body.word(np.maximum(parent.starts, 0)) == 0)] = -1
        start, end = (_nanoseconds(body, part) for part in (found.start, found.end))
        odd |= (start < EARLIEST_NS) | (start > self.request.reader.latest_ns)
        self.started_us = (start // np.uint64(1000)).astype(np.int64)
        ended_us = (end // np.uint64(1000)).astype(np.int64)
        self.duration_us = np.where(end > 0, np.maximum(ended_us - self.started_us, 0), 0)
        code = body.octets.take(np.maximum(found.status.starts, 0) + 1)
        tag = body.octets.take(np.maximum(found.status.starts, 0))
        empty = found.status.lengths == 0
        plain = (found.status.lengths == 2) & (tag == 0x18) & (code < 0x80)
        odd |= ~empty & ~plain
        self.failed = (plain & (code == 2)).astype(np.int64)
        odd |= ~values.are_ascii(body, np.maximum(found.name.starts, 0), found.name.lengths)


def _nanoseconds(body: Body, part: Part) -> Any:
    return np.where(part.starts >= 0, body.word(np.maximum(part.starts, 0)), np.uint64(0))


@dataclass(slots=True)
class _Calls:
    """Spans that each make a call, on their way to be rows."""

    part: _Part
    found: Fields
    attributes: Attributes
    spans: Index
    templates: list[Template]
    group: Index
    odd: Mask

    def table(self, seen: Values, facts: Sequence[Fact], differs: Callable[[str], bool]) -> Table | None:
        """The rows of those that stay plain; None when there are none."""
        part, count = self.part, len(self.spans)
        own = own_facts.find(part.body, self.attributes, seen, facts, self.templates, self.group, differs, self.odd)
        figures, alike, notes = self._figures(own)
        by_call = self._costed(figures, alike, notes)
        valued = costs.costs(by_call, self.templates, part.request.book, self.odd)
        if valued is None:
            return None
        whole = {name: figures[name] for name in figures}
        whole["started_at"] = _always(by_call.started_us)
        whole["duration_us"] = _always(part.duration_us[self.spans])
        parts = {fact.column: own[fact.name] for fact in facts if fact.column is not None and fact.name in own}
        columns = build.columns(valued, whole, parts)
        octets = part.body.octets
        columns["trace_id"] = build.ids(octets, self.found.trace_id.starts[self.spans], 16)
        columns["span_id"] = build.ids(octets, self.found.span_id.starts[self.spans], 8)
        columns["parent_span_id"] = build.ids(octets, self.found.parent.starts[self.spans], 8)
        kept = np.flatnonzero(~self.odd)
        table = Table(columns, count, [part.request.call], np.zeros(count, np.int64), part.first + self.spans)
        table = table if len(kept) == count else table.take(kept)
        providers = [one.call.provider_name for one in self.templates if one.call is not None]
        table.columns["call_id"] = _call_ids(table, [providers[one] for one in self.group[kept].tolist()])
        return table

    def _figures(self, own: dict[str, Found]) -> tuple[dict[str, Figure], Index, list[dict[str, str]]]:
        """(figures by column, for each call which of these further attributes it has, those)."""
        count = len(self.spans)
        if self.templates[0].others is None:
            named = {fact.name: figure(own.get(fact.name), count) for fact in OWN if fact.name in _OWN_FIGURES}
            first = own.get("first_chunk_s")
            chunk = Figure.unknown(count)
            if first is not None and isinstance(first.column, Numbers):
                seconds = first.column.values
                given = (seconds >= 0) & (seconds < 1e9)
                # The double nearest to the product, rounded half to even: what round() makes of it.
                micros = np.rint(np.where(given, seconds, 0) * 1_000_000).astype(np.int64)
                chunk = Figure.known_of(count, first.rows[given], micros[given])
            named["time_to_first_chunk_us"] = chunk
            named["observer_listed_cost"] = named.pop("listed_cost")
            return named, np.zeros(count, np.int64), [{}]
        return self._foreign_figures(own)

    def _foreign_figures(self, own: dict[str, Found]) -> tuple[dict[str, Figure], Index, list[dict[str, str]]]:
        count = len(self.spans)
        sent = {fact: figure(own.get(fact), count) for fact in COUNTS.values()}
        out = {name: Figure(sent[fact].values.copy(), sent[fact].known.copy()) for name, fact in _USAGE_FACTS.items()}
        for name in ("reported_cost", "upstream_cost", "observer_listed_cost", "time_to_first_chunk_us"):
            out[name] = Figure.unknown(count)
        numbers = {fact: _doubles(own.get(fact), count) for fact in ("cost", "first_chunk_s", "first_chunk_ms")}
        notes: list[dict[str, str]] = [{}]
        codes: dict[str, int] = {"{}": 0}
        alike = np.zeros(count, np.int64)
        groups = [one.others for one in self.templates]
        # A call without a duration of its own starts when it says, not when its span does.
        self.odd |= self.part.duration_us[self.spans] == 0
        parts = (sent["cache_read"].values + sent["cache_write"].values + sent["reasoning"].values) > 0
        parts |= sent["cache_write_1h"].known
        parts |= np.array([one is not None and one.needs_tokens for one in groups]).take(self.group)
        chunked = np.array([one is not None and one.needs_first_chunk for one in groups]).take(self.group)
        for number in numbers.values():
            chunked |= ~np.isnan(number)
        for row in np.flatnonzero((parts | chunked) & ~self.odd).tolist():
            others = groups[self.group[row]]
            assert others is not None  # noqa: S101  # all templates here are of others' spans
            mine: dict[str, object] = {fact: one.at(row) for fact, one in sent.items() if one.known[row]}
            mine |= {fact: float(one[row]) for fact, one in numbers.items() if not np.isnan(one[row])}
            facts = RowFacts(others.facts, mine)
            note: dict[str, str] = {}
            tokens = foreign.tokens_of(facts, others.dialect, others.provider, note)
            reported, listed = foreign.costs(
                facts, others.dialect, bool(tokens.input_tokens or tokens.output_tokens), note
            )
            chunk = foreign.first_chunk_us(facts, costs.at(int(self.part.started_us[self.spans[row]])))
            if "cost_rejected" in note:
                self.odd[row] = True
                continue
            for name in _USAGE_FACTS:
                _put(out[name], row, getattr(tokens, name))
            _put(out["reported_cost"], row, _pico(reported))
            _put(out["observer_listed_cost"], row, _pico(listed))
            _put(out["time_to_first_chunk_us"], row, chunk)
            if note:
                code = codes.setdefault(repr(note), len(notes))
                if code == len(notes):
                    notes.append(note)
                alike[row] = code
        return out, alike, notes

    def _costed(self, figures: dict[str, Figure], alike: Index, notes: list[dict[str, str]]) -> costs.Calls:
        started = self.part.started_us[self.spans]

        def of(row: int) -> LLMCall:
            made = self.templates[self.group[row]]
            assert made.call is not None  # noqa: S101  # these spans make calls
            usage = {name: figures[name].at(row) for name in TokenUsage.__slots__ if name in figures}
            attributes = made.call.attributes
            if made.others is not None:
                kept = {name: text for name, text in attributes.items() if name not in foreign.NOTES}
                attributes = {**kept, **notes[alike[row]]}
            call: LLMCall = replace(
                made.call,
                started_at=costs.at(int(started[row])),
                usage=replace(made.call.usage, **usage),
                reported_cost=_usd(figures["reported_cost"].at(row)),
                upstream_cost=_usd(figures["upstream_cost"].at(row)),
                listed_cost=_usd(figures["observer_listed_cost"].at(row)),
                cost_basis=made.call.cost_basis,
                attributes=attributes,
            )
            return call

        return costs.Calls(
            group=self.group,
            started_us=started,
            alike=alike,
            input=figures["input_tokens"],
            output=figures["output_tokens"],
            cache_read=figures["cache_read_input_tokens"],
            cache_write=figures["cache_write_input_tokens"],
            cache_write_1h=figures["cache_write_1h_input_tokens"],
            reasoning=figures["reasoning_output_tokens"],
            reported=figures["reported_cost"],
            upstream=figures["upstream_cost"],
            listed=figures["observer_listed_cost"],
            of=of,
        )


_OWN_FIGURES = frozenset(semconv.USAGE.values()) | frozenset(semconv.MONEY.values())


def _always(numbers: Index) -> Figure:
    return Figure(numbers, np.ones(len(numbers), np.bool_))


def _doubles(found: Found | None, count: int) -> Any:
    out = np.full(count, np.nan)
    if found is not None and isinstance(found.column, Numbers):
        out[found.rows] = found.column.values
    return out


def _put(figure_: Figure, row: int, value: int | None) -> None:
    figure_.values[row] = value or 0
    figure_.known[row] = value is not None


def _pico(amount: Decimal | None) -> int | None:
    return None if amount is None else money.pico(amount)


def _usd(pico: int | None) -> Decimal | None:
    return None if pico is None else Decimal(pico).scaleb(-12)


def _call_ids(table: Table, providers: Sequence[str]) -> Numbers:
    """As spendwatch.calls.call_id: the hash of provider and reply's id, else of trace and span id."""
    replies = table.columns["response_id"]
    assert isinstance(replies, Texts)  # noqa: S101  # by its type
    octets = replies.octets.tobytes()
    heads = {name: f"{name}\0".encode() for name in set(providers)}
    starts, lengths = replies.starts.tolist(), replies.lengths.tolist()
    digests = []
    traces, spans = table.numbers("trace_id"), table.numbers("span_id")
    for row, (provider, start, length) in enumerate(zip(providers, starts, lengths, strict=True)):
        if length:
            key = heads[provider] + octets[start : start + length]
        else:
            key = f"{traces[row].tobytes().hex()}\0{spans[row].tobytes().hex()}".encode()
        digests.append(blake2b(key, digest_size=8).digest())
    return Numbers(np.frombuffer(b"".join(digests), ">u8").astype("<u8"))
