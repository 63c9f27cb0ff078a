"""The attributes of many spans -> for each wanted name, whose span has it and where its value lies.

Names are looked at, values are not: an attribute that nobody wants is passed over with whatever it holds. A span whose
attributes are not written as encoders write them, or that names one twice, is odd and left to the general way.
"""

from dataclasses import dataclass

import numpy as np

from collectors.otlp.bulk.fields import Fields, delimited
from collectors.otlp.bulk.octets import Body, Index, Interner, Mask
from collectors.otlp.spans import Wanted

_KEY, _VALUE = 0x0A, 0x12
_LONGEST = 64
_OWN = b"spendwat"
_MAX_NAMES = 200
"""Different wanted names in one request. Only free-form tags make that many; the spans with the others are odd."""


@dataclass(slots=True)
class Attributes:
    """`places[n]` tells for each span where in `starts` and `lengths` its value of names[n] is; -1: not sent."""

    names: list[str]
    places: Index
    starts: Index
    lengths: Index

    def row_of(self, name: str) -> int | None:
        """Which row of `places` a name has, None when no span has it."""
        try:
            return self.names.index(name)
        except ValueError:
            return None


class Names:
    """Attribute names seen so far, and whether each is wanted."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._seen = Interner(longest=_LONGEST, capacity=16_384)
        self._texts: list[str | None] = []
        self._is_wanted = np.zeros(self._seen.capacity, np.bool_)
        self._is_broken = np.zeros(self._seen.capacity, np.bool_)

    def find(self, body: Body, fields: Fields) -> Attributes:
        """The wanted attributes of the spans. Marks odd spans in fields.odd."""
        if self._seen.is_full:
            self._seen.clear()
            self._texts.clear()
        rows, starts, ends, odd = fields.rows, fields.starts, fields.ends, fields.odd
        size = body.at(starts + 1)
        key = starts + 2
        after = key + size
        value, length = delimited(body, after + 1)
        plain = (body.octets.take(starts) == _KEY) & (size < 0x80) & (after < ends)
        plain &= (body.octets.take(np.minimum(after, ends)) == _VALUE) & (value + length == ends)
        if not plain.all():
            odd[rows[~plain]] = True
            rows, key, size, value, length = (one[plain] for one in (rows, key, size, value, length))
        codes = self._seen.codes(body, key, size)
        self._judge()
        known = codes >= 0
        if not known.all():
            self._unknown(body, key, size, rows, codes, odd)
            codes = np.where(known, codes, 0)
        odd[rows[self._is_broken.take(codes) & known]] = True
        wanted = np.flatnonzero(self._is_wanted.take(codes) & known)
        rows, codes, value, length = rows[wanted], codes[wanted], value[wanted], length[wanted]
        present = np.flatnonzero(np.bincount(codes, minlength=1))
        if len(present) > _MAX_NAMES:
            counts = np.bincount(codes)
            rare = np.sort(np.argsort(-counts[present], kind="stable")[_MAX_NAMES:])
            odd[rows[np.isin(codes, present[rare])]] = True
            present = np.delete(present, rare)
            kept = np.flatnonzero(np.isin(codes, present))
            rows, codes, value, length = rows[kept], codes[kept], value[kept], length[kept]
        local = np.zeros(self._seen.capacity, np.int64)
        local[present] = np.arange(len(present))
        count = len(odd)
        places = np.full(len(present) * count, -1, np.int64)
        cell = local.take(codes) * count + rows
        number = np.arange(len(rows))
        places[cell] = number
        twice = places.take(cell) != number
        if twice.any():
            odd[rows[twice]] = True
        names = [self._texts[code] or "" for code in present.tolist()]
        return Attributes(names, places.reshape(len(present), count), value, length)

    def _judge(self) -> None:
        for code in range(len(self._texts), len(self._seen.texts)):
            text = self._seen.texts[code]
            try:
                name: str | None = text.decode()
            except UnicodeDecodeError:
                name = None
            self._texts.append(name)
            self._is_broken[code] = name is None
            self._is_wanted[code] = name is not None and self._wanted(name)

    def _unknown(self, body: Body, key: Index, size: Index, rows: Index, codes: Index, odd: Mask) -> None:
        """Names that are not remembered: the long ones are nobody's but for our own prefix, new ones had no place."""
        own = np.uint64(int.from_bytes(_OWN, "little"))
        some = np.flatnonzero(codes < 0)
        ours = body.word(key[some]) == own
        new = size[some] <= _LONGEST
        odd[rows[some[ours | new]]] = True
