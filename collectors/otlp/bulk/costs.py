"""The three layers of cost of many calls at once, in whole pico-dollars.

Which rates hold and which layers are known is what spendwatch.prices says for one call of each cell: the calls of one
group under one snapshot of prices, on one day, in one step of input tokens. Only the sums are made here, of integers.
A sum that might not fit makes its call odd.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from collectors.otlp.bulk.figures import Figure
from collectors.otlp.bulk.octets import Index, Mask
from collectors.otlp.bulk.templates import Cell, Template, cell
from spendwatch.calls import LLMCall
from spendwatch.clickhouse.columns import MAX_COST_PICO, micros
from spendwatch.prices import PriceBook
from spendwatch.prices.tariff import PICO_DIGITS, Rates, terms
from spendwatch.prices.value import input_shares

_DAY_US = 86_400_000_000
_FITS = 2.0**61


@dataclass(slots=True)
class Calls:
    """What decides costs, of each call. `alike`: a number for anything else in which the calls of a group differ."""

    group: Index
    started_us: Index
    alike: Index
    input: Figure
    output: Figure
    cache_read: Figure
    cache_write: Figure
    cache_write_1h: Figure
    reasoning: Figure
    reported: Figure
    upstream: Figure
    listed: Figure
    of: Callable[[int], LLMCall]
    """The call in a row, with its figures; its ids and texts may be another's."""


@dataclass(slots=True)
class Costs:
    """The layers of each call. `cell`: which of `cells` it is in."""

    listing: Figure
    """The list price."""
    routed: Figure
    effective: Figure
    cell: Index
    cells: list[Cell]


def costs(calls: Calls, templates: Sequence[Template], book: PriceBook, odd: Mask) -> Costs | None:
    """Value the calls; None when there is not one that can be. Marks those in `odd` that are to be valued alone."""
    numbers, cells = _cells(calls, templates, book, odd)
    if not cells:
        return None
    count = len(numbers)
    tariffs = [one.tariff for one in cells]
    free = np.array([one is None for one in tariffs]).take(numbers)
    listing = _layer(calls, numbers, [t.list if t else None for t in tariffs], odd, as_list=True)
    listed = _layer(calls, numbers, [t.listed if t else None for t in tariffs], odd, as_list=False)
    routed = _layer(calls, numbers, [t.routed if t else None for t in tariffs], odd, as_list=True)
    as_list = np.array([t is not None and t.routed_as_list for t in tariffs]).take(numbers)
    routed = Figure(np.where(as_list, listing.values, routed.values), np.where(as_list, listing.known, routed.known))
    for layer in (listing, listed, routed):
        layer.known |= free
    effective = Figure.unknown(count)
    byok = np.array([bool(one.priced.call.is_byok) for one in cells]).take(numbers)
    # As spendwatch.prices.value: reported, with the upstream's charge for an own key; else listed here, else there.
    charged = calls.reported.values + np.where(byok & calls.upstream.known, calls.upstream.values, 0)
    effective.values = np.where(
        calls.reported.known, charged, np.where(listed.known, listed.values, calls.listed.values)
    )
    effective.known = calls.reported.known | listed.known | calls.listed.known
    for layer in (listing, routed, effective):
        odd |= layer.values > MAX_COST_PICO
    return Costs(listing, routed, effective, numbers, cells)


def _cells(calls: Calls, templates: Sequence[Template], book: PriceBook, odd: Mask) -> tuple[Index, list[Cell]]:
    """The cell of each call, and the cells. A call whose costs are not plain is odd and in the cell 0."""
    moments = _moments(book)
    snapshot = np.searchsorted(moments, calls.started_us, side="right")
    parts = [calls.group, snapshot, calls.started_us // _DAY_US, calls.alike]
    parts += [one.known.astype(np.int64) for one in (calls.reported, calls.upstream, calls.listed)]
    _, firsts, wide = np.unique(_joined(parts), return_index=True, return_inverse=True)
    numbers = np.zeros(len(wide), np.int64)
    cells: list[Cell] = []
    for number, first in enumerate(firsts.tolist()):
        template = templates[int(calls.group[first])]
        sample = calls.of(first)
        key = (
            int(moments[snapshot[first] - 1]) if snapshot[first] else None,
            int(calls.started_us[first]) // _DAY_US,
            sample.reported_cost is None,
            sample.upstream_cost is None,
            sample.listed_cost is None,
            tuple(sample.attributes.items()),
            *(getattr(sample.usage, name) is None for name in ("input_tokens", "output_tokens")),
        )
        steps = template.steps.get(key)
        if steps is None:
            found = terms(sample, book)
            steps = template.steps[key] = () if found is None else found.steps
        rows = np.flatnonzero(wide == number) if len(firsts) > 1 else np.arange(len(wide))
        band = np.searchsorted(np.array(steps, np.int64), calls.input.values[rows], side="left") if steps else None
        for step in range(len(steps) + 1):
            some = rows if band is None else rows[band == step]
            if not some.size:
                continue
            full = (*key, step)
            if full not in template.cells:
                template.cells[full] = cell(calls.of(int(some[0])), book)
            found_cell = template.cells[full]
            if found_cell is None:
                odd[some] = True
                continue
            numbers[some] = len(cells)
            cells.append(found_cell)
    return numbers, cells


def _joined(parts: Sequence[Index]) -> Index:
    """One number for each combination."""
    out = parts[0]
    for part in parts[1:]:
        low = int(part.min(initial=0))
        out = out * (int(part.max(initial=0)) - low + 1) + (part - low)
    return out


def _moments(book: PriceBook) -> Index:
    """When a snapshot of prices begins to hold, whosever."""
    starts = {micros(start) for snapshots in book.dated.values() for start, _ in snapshots}
    return np.array(sorted(starts), np.int64)


def _layer(calls: Calls, numbers: Index, rates: Sequence[Rates | None], odd: Mask, *, as_list: bool) -> Figure:
    if not any(rates):
        return Figure.unknown(len(numbers))

    def per_call(name: str) -> Index:
        each = np.array([getattr(one, name) if one is not None else 0 for one in rates], np.int64)
        return each.take(numbers) if len(each) > 1 else each

    known = np.array([one is not None for one in rates]).take(numbers)
    given, output = calls.input.values, calls.output.values
    fixed = per_call("fixed")
    products: list[tuple[Index, Index]] = []
    if as_list:
        products.append((given, per_call("input")))
    else:
        fresh, read, written, hour = input_shares(
            given, calls.cache_read.values, calls.cache_write.values, calls.cache_write_1h.values, np.minimum
        )
        products += [(fresh, per_call("input")), (read, per_call("cache_read"))]
        products += [(written, per_call("cache_write")), (hour, per_call("cache_write_1h"))]
    thought = np.minimum(calls.reasoning.values, output)
    products += [(output - thought, per_call("output")), (thought, per_call("reasoning"))]
    total, size = np.zeros(len(numbers), np.int64) + fixed, np.zeros(len(numbers)) + fixed
    for tokens, rate in products:
        total += tokens * rate
        # Only to see whether the sum may not fit; no cost is made of it.
        size += tokens.astype(np.float64) * rate
    odd |= known & (size > _FITS)
    digits = per_call("digits")
    return Figure(np.where(known, _to_pico(total, digits), 0), known)


def _to_pico(total: Index, digits: Index) -> Index:
    """Parts of 10^-digits USD in pico-dollars, half to even."""
    more = np.maximum(digits - PICO_DIGITS, 0)
    if not more.any():
        return total
    unit: Index = 10**more
    whole, rest = np.divmod(total, unit)
    twice = rest * 2
    rounded: Index = whole + ((twice > unit) | ((twice == unit) & (whole & 1 == 1)))
    return rounded


def at(started_us: int) -> datetime:
    """The time of a count of microseconds since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=started_us)
