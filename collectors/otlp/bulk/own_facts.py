"""The facts of many spans that are their own: each read from the attribute that its group's template names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collectors.otlp.attributes import DecodeError, read_value
from collectors.otlp.bulk import values
from collectors.otlp.bulk.attributes import Attributes
from collectors.otlp.bulk.facts import Fact, Kind
from collectors.otlp.bulk.figures import Figure
from collectors.otlp.bulk.groups import Values
from collectors.otlp.bulk.octets import Body, Index, Mask, ragged
from collectors.otlp.bulk.templates import Template
from spendwatch.clickhouse.table import Coded, Column, Numbers, Texts


@dataclass(slots=True)
class Found:
    """One fact, of those spans (`rows`) that have it."""

    rows: Index
    column: Column


def figure(found: "Found | None", count: int) -> Figure:
    """A fact that is a number, as a figure of all spans."""
    if found is None or not isinstance(found.column, Numbers):
        return Figure.unknown(count)
    return Figure.known_of(count, found.rows, found.column.values)


def find(
    body: Body,
    attributes: Attributes,
    seen: Values,
    facts: Sequence[Fact],
    templates: Sequence[Template],
    group: Index,
    differs: Callable[[str], bool],
    odd: Mask,
) -> dict[str, Found]:
    """The facts by name. Marks in `odd` the spans in which one is not written as it should be.

    differs: whether an attribute may be chosen for a fact; one that is not chosen must be readable all the same.
    """
    out: dict[str, Found] = {}
    index = {name: row for row, name in enumerate(attributes.names)}
    for fact in facts:
        chosen = [index.get(one.chosen.get(fact.name, ""), -1) for one in templates]
        if max(chosen) < 0:
            continue
        if min(chosen) == max(chosen):
            places = attributes.places[chosen[0]]
            rows = np.flatnonzero(places >= 0)
            at = places[rows]
        else:
            which = np.array(chosen, np.int64).take(group)
            rows = np.flatnonzero(which >= 0)
            at = attributes.places[which[rows], rows]
            sent = at >= 0
            rows, at = rows[sent], at[sent]
        column, good = _column(body, attributes.starts[at], attributes.lengths[at], fact.kind, seen)
        if not good.all():
            odd[rows[~good]] = True
        out[fact.name] = Found(rows, column)
    for name, places in zip(attributes.names, attributes.places, strict=True):
        if not differs(name):
            continue
        taken = np.array([name in one.chosen.values() for one in templates])
        if taken.all():
            continue
        rows = np.flatnonzero((places >= 0) & ~taken.take(group))
        at = places[rows]
        odd[rows[~values.are_plain(body, attributes.starts[at], attributes.lengths[at])]] = True
    return out


def _column(body: Body, starts: Index, lengths: Index, kind: Kind, seen: Values) -> tuple[Column, Mask]:
    if kind is Kind.COUNT:
        counts, good = values.counts(body, starts, lengths)
        return Numbers(counts), good
    if kind is Kind.HASH:
        hashes, good = values.hashes(body, starts, lengths)
        return Numbers(hashes), good
    if kind is Kind.AMOUNT:
        amounts, good = values.amounts(body, starts, lengths)
        return Numbers(amounts), good
    if kind is Kind.FLAG:
        flags, good = values.flags(body, starts, lengths)
        return Numbers(flags), good
    if kind is Kind.NUMBER:
        doubles, good = values.doubles(body, starts, lengths)
        return Numbers(doubles), good
    if kind is Kind.TOOLS:
        return _tools(body, starts, lengths)
    begin, size, good = values.texts(body, starts, lengths)
    if kind is Kind.TEXT:
        # Copied out of the request, which would be kept for them.
        return Texts(ragged(body.octets, begin, size), np.cumsum(size) - size, size), good
    codes = seen.seen.codes(body, begin, size)
    good &= codes >= 0
    used, codes = np.unique(np.where(good, codes, -1), return_inverse=True)
    return Coded(codes, [seen.seen.texts[code].decode() if code >= 0 else "" for code in used.tolist()]), good


def _tools(body: Body, starts: Index, lengths: Index) -> tuple[Column, Mask]:
    """Lists of texts "name:hash:hash", as they are; what is not of three parts is left out."""
    lists: list[list[str]] = []
    good = np.ones(len(starts), np.bool_)
    for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        try:
            items = read_value(AnyValue.FromString(body.raw[start : start + length]))
        except DecodeError:
            items = None
        if not isinstance(items, list):
            good[row] = False
            items = []
        lists.append([item for item in items if isinstance(item, str) and item.count(":") > 1])
    return Coded(np.arange(len(lists)), list(lists)), good
