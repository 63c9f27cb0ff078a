"""Spans that are read alike: those that agree in all that decides, and in which facts of their own they have.

Invariant: two spans of one group differ in nothing that is read but the values of their own facts (facts.py), their ids
and times. It is compared, not trusted to a hash. Never here: what an attribute means.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from collectors.otlp.bulk import values
from collectors.otlp.bulk.attributes import Attributes
from collectors.otlp.bulk.facts import RESPONSE_ID_NAMES
from collectors.otlp.bulk.octets import Body, Index, Interner, Mask, Words

_LETTERS = np.zeros(256, np.bool_)
_LETTERS[[*range(65, 91), *range(97, 123), 45, 95]] = True
_COLONS = np.uint64(0x3A3A3A3A3A3A3A3A)
_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)


@dataclass(slots=True)
class Groups:
    """`number`: the group of each span. `firsts`: one span of each group. `keys`: equal for groups that are alike,
    also those of other requests, until Values.clear()."""

    number: Index
    firsts: Index
    keys: list[tuple[tuple[str, int], ...]]


class Values:
    """Attribute values seen so far, whole."""

    def __init__(self) -> None:
        self.seen = Interner(longest=128, capacity=32_768)

    def clear_when_full(self) -> bool:
        """Forget all when there is no room any more; then what was kept under Groups.keys is to be forgotten too."""
        full = self.seen.is_full
        if full:
            self.seen.clear()
        return full


def group(
    body: Body,
    attributes: Attributes,
    seen: Values,
    *,
    decides: Callable[[str], bool],
    differs: Callable[[str], bool],
    given: dict[str, Index],
    odd: Mask,
) -> Groups:
    """Group the spans, which are the columns of attributes.places.

    decides: whether an attribute of this name must be equal in a group. differs: whether it may not be, only there.
    given: what else must be equal. Marks in `odd` the spans that can't be grouped. An attribute that neither decides
    nor differs is not read, but the general way would refuse a broken one.
    """
    parts: list[tuple[str, Index]] = list(given.items())
    for name, place in zip(attributes.names, attributes.places, strict=True):
        own = differs(name)
        spans = np.flatnonzero(place >= 0)
        if not spans.size:
            continue
        if not own and not decides(name):
            odd[spans[~values.are_plain(body, attributes.starts[place[spans]], attributes.lengths[place[spans]])]] = (
                True
            )
            continue
        part = np.zeros(len(place), np.int64)
        at = place[spans]
        if name in RESPONSE_ID_NAMES:
            part[spans] = 1 + _look_of_an_id(body, attributes.starts[at], attributes.lengths[at])
        elif own:
            part[spans] = 1
        else:
            codes = seen.seen.codes(body, attributes.starts[at], attributes.lengths[at])
            part[spans] = 1 + codes
            odd[spans[codes < 0]] = True
        parts.append((name, part))
    hashes = _hash([part for _, part in parts], len(odd))
    _, firsts, number = np.unique(hashes, return_index=True, return_inverse=True)
    for _, part in parts:
        odd |= part != part[firsts].take(number)
    keys: list[tuple[tuple[str, int], ...]] = []
    heads = [(name, part[firsts].tolist()) for name, part in sorted(parts, key=lambda one: one[0])]
    for row in range(len(firsts)):
        keys.append(tuple((name, column[row]) for name, column in heads if column[row]))
    return Groups(number, firsts, keys)


_FACTOR = np.uint64(secrets.randbits(64) | 1)


def _hash(parts: list[Index], count: int) -> Words:
    out = np.zeros(count, np.uint64)
    for number, part in enumerate(parts, start=1):
        out = (out ^ (part.astype(np.uint64) + np.uint64(number))) * _FACTOR
        out ^= out >> np.uint64(29)
    return out


def _look_of_an_id(body: Body, starts: Index, lengths: Index) -> Index:
    """How a reply's id begins ("gen-", "chat", "msg_"), and whether a colon is in it: so far ids are looked at."""
    begin, size, good = values.texts(body, starts, lengths)
    head = body.word(begin).view(np.uint8).reshape(-1, 8)[:, :4]
    named = good & (size >= 4) & _LETTERS.take(head).all(axis=1)
    look = np.where(named, np.ascontiguousarray(head).view("<u4").ravel(), 0).astype(np.int64)
    colon = np.zeros(len(starts), np.bool_)
    rows = np.flatnonzero(good)
    for at in range(0, int(size.max(initial=0)), 8):
        rows = rows[size[rows] > at]
        word = body.word(begin[rows] + at) ^ _COLONS
        inside = np.minimum(size[rows] - at, 8).astype(np.uint64)
        # Which byte is zero now, without those behind the text's end.
        zero = (word - _ONES) & ~word & _HIGH
        kept = np.where(inside == 8, np.uint64(2**64 - 1), (np.uint64(1) << (inside * np.uint64(8))) - np.uint64(1))
        colon[rows] |= (zero & kept) != 0
    return look << 1 | colon
