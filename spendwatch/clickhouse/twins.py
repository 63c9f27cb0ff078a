"""One call under several identities, made one: which of its observations stays, and what it is to hold.

The one that a reply's id names stays, else the best observer's; the others' facts go into it, and they are taken away.
Insert does so where it can see them, the roller elsewhere. Pure. Never here: what makes two observations one call
(same.py), writing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from spendwatch.calls import PricedCall
from spendwatch.clickhouse import same
from spendwatch.clickhouse.merge import merge, rank
from spendwatch.clickhouse.stored import StoredCall, normalise


@dataclass(slots=True)
class Group:
    """One call's observations: the one that stays, what it is to hold, and those that go. None: all of them go."""

    keeper: PricedCall | None
    whole: PricedCall | None
    gone: list[PricedCall] = field(default_factory=list)


def groups(calls: Sequence[PricedCall]) -> list[Group]:
    """The calls among these that were seen under several identities. The calls' own identities must differ."""
    found = same.repeats([call.call for call in calls])
    together: defaultdict[int, list[int]] = defaultdict(list)
    out: list[Group] = []
    for n, repeat in found.items():
        of = repeat.of
        while of is not None and (further := found.get(of)) is not None:
            of = further.of
        if of is None:
            out.append(Group(keeper=None, whole=None, gone=[calls[n]]))
        else:
            together[of].append(n)
    for of, others in together.items():
        members = sorted([calls[of], *(calls[n] for n in others)], key=_worth, reverse=True)
        keeper, *gone = members
        whole = reduce(merge, (_named_as(keeper, other) for other in gone), normalise(keeper))
        out.append(Group(keeper=keeper, whole=whole, gone=gone))
    return out


def _worth(call: PricedCall) -> tuple[object, ...]:
    return call.call.response_id is not None, rank(call), call.call.trace_id, call.call.span_id


def _named_as(keeper: PricedCall, other: PricedCall) -> PricedCall:
    """The other one under the keeper's identity, which the merged call is to have whoever is the better observer."""
    own = keeper.call
    if own.response_id is not None:
        call = replace(other.call, provider_name=own.provider_name, response_id=own.response_id)
    else:
        call = replace(
            other.call, trace_id=own.trace_id, span_id=own.span_id, parent_span_id=own.parent_span_id, response_id=None
        )
    return normalise(replace(_priced(other), call=call))


def _priced(call: PricedCall) -> PricedCall:
    return call.priced() if isinstance(call, StoredCall) else call
