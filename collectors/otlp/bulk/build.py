"""Grouped spans -> their rows, as columns.

A column is what the cell's exemplar has in it, then what each call has of its own. Never here: how a figure comes out
of a span, what it means.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collectors.otlp.bulk.costs import Costs
from collectors.otlp.bulk.figures import Figure
from collectors.otlp.bulk.octets import Index
from collectors.otlp.bulk.own_facts import Found
from spendwatch.clickhouse.columns import OFFSETS, TYPES
from spendwatch.clickhouse.table import Coded, Column, Numbers, Texts, column


def columns(costs: Costs, figures: Mapping[str, Figure], found: Mapping[str, Found]) -> dict[str, Column]:
    """The columns of TYPES. figures: whole columns by name. found: parts of columns by name."""
    figures = {**figures, "list_cost": costs.listing, "routed_cost": costs.routed, "effective_cost": costs.effective}
    out: dict[str, Column] = {}
    for number, name in enumerate(TYPES):
        whole = _figure(name, figures)
        if whole is not None:
            out[name] = whole
            continue
        base = column(name, [one.row[number] for one in costs.cells]).take(costs.cell)
        own = found.get(name)
        out[name] = base if own is None else _laid_over(base, own)
    return out


def _figure(name: str, figures: Mapping[str, Figure]) -> Numbers | None:
    found = figures.get(name.removesuffix("_offset"))
    if found is None:
        return None
    nullable = TYPES[name].insert_name.startswith("Nullable(")
    shifted = found.values
    if name in OFFSETS:
        base = sum(figures[other].values for other in OFFSETS[name])
        shifted = np.where(found.known, shifted - base, 0)
    return Numbers(shifted, found.known if nullable else None)


def _laid_over(base: Column, own: Found) -> Column:
    rows, part = own.rows, own.column
    if isinstance(base, Numbers) and isinstance(part, Numbers):
        base.values[rows] = part.values
        if base.known is not None:
            base.known[rows] = True
        return base
    if isinstance(base, Texts) and isinstance(part, Texts):
        if len(rows) == len(base.starts):
            return part
        behind = len(base.octets)
        base.starts[rows], base.lengths[rows] = part.starts + behind, part.lengths
        return Texts(np.concatenate([base.octets, part.octets]), base.starts, base.lengths)
    if isinstance(base, Coded) and isinstance(part, Coded):
        behind = len(base.values)
        base.codes[rows] = part.codes + behind
        return Coded(base.codes, base.values + part.values)
    raise TypeError(f"expected parts of a {type(base).__name__}, found {type(part).__name__}")


def ids(octets: Any, starts: Index, size: int) -> Numbers:
    """Ids of so many bytes; zeros for a start below 0."""
    picked = octets.take(np.maximum(starts, 0)[:, None] + np.arange(size))
    picked[starts < 0] = 0
    return Numbers(np.ascontiguousarray(picked).view(f"V{size}").ravel())
