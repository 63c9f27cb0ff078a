"""A request's bytes as numpy sees them, and texts in them as small numbers.

An Interner gives equal texts equal codes, exactly: what the hash finds is compared word by word with what the code
stands for, so that nobody can make two texts look alike. It remembers across requests and is bounded.
"""

import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]

_PAD = bytes(512)
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(8)] + [2**64 - 1], np.uint64)
"""Of a word of eight bytes, the first n."""

_BLOCK = 32
_KEEP_OF_BLOCK = np.array(
    [[_KEEP[min(max(size - at, 0), 8)] for at in range(0, _BLOCK, 8)] for size in range(_BLOCK + 1)]
)
"""Of four words, the first n bytes."""
_ALL_FOUR = 0x01010101

TOO_LONG = -1
"""The code of a text that an Interner does not take."""


class Body:
    """The bytes of one request. Reading some bytes behind the end gives zeros."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        padded = raw + _PAD
        self.octets: Bytes = np.frombuffer(padded, np.uint8)
        # A view, one word at each byte: nothing is copied.
        self._words: Words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
        self._blocks = np.ndarray((len(padded) - _BLOCK + 1,), f"V{_BLOCK}", padded, strides=(1,))

    def __len__(self) -> int:
        return len(self.raw)

    def at(self, places: Index) -> Index:
        """The byte at each place."""
        return self.octets.take(places).astype(np.int64)

    def word(self, places: Index) -> Words:
        """The eight bytes from each place on, the first one lowest."""
        return self._words[places]

    def block(self, places: Index) -> Words:
        """The 32 bytes from each place on, as four words each."""
        return self._blocks[places].view("<u8").reshape(-1, _BLOCK // 8)


def first_bytes(words: Words, counts: Index) -> Words:
    """The words with all but their first bytes set to zero; counts may be beyond 8."""
    return words & _KEEP.take(np.minimum(counts, 8))


class Interner:
    """Texts -> codes from 0 on, the same code for the same text until clear()."""

    _PROBES = 3

    def __init__(self, *, longest: int, capacity: int, slot_bits: int = 17) -> None:
        """longest: bytes of a text that is taken, whole blocks of 32. capacity: how many are remembered."""
        self.longest = longest
        self.capacity = capacity
        self._shift = np.uint64(64 - slot_bits)
        self._mask = np.uint64((1 << slot_bits) - 1)
        self._factor = np.uint64(secrets.randbits(64) | 1)
        self._seed = np.uint64(secrets.randbits(64))
        self._blocks = [np.zeros(capacity, f"V{_BLOCK}") for _ in range(longest // _BLOCK)]
        self._lengths = np.zeros(capacity, np.int64)
        self._slots = np.zeros(1 << slot_bits, np.int32)
        self.clear()

    def clear(self) -> None:
        """Forget all: codes given before mean nothing any more."""
        self.texts: list[bytes] = []
        self._codes: dict[bytes, int] = {}
        self._slots.fill(-1)

    @property
    def is_full(self) -> bool:
        """Whether new texts are turned away; then it is time to clear()."""
        return len(self.texts) >= self.capacity

    def codes(self, body: Body, starts: Index, lengths: Index) -> Index:
        """The code of each text body[start:start + length]; TOO_LONG where it is too long, or new and no place left."""
        found = np.full(len(starts), TOO_LONG, np.int64)
        for blocks in range(1, len(self._blocks) + 1):
            before = _BLOCK * (blocks - 1)
            rows = np.flatnonzero((lengths <= before + _BLOCK) & ((lengths > before) | (blocks == 1)))
            if rows.size == len(starts):
                return self._codes_of(body, starts, lengths, blocks)
            if rows.size:
                found[rows] = self._codes_of(body, starts[rows], lengths[rows], blocks)
        return found

    def _codes_of(self, body: Body, starts: Index, lengths: Index, blocks: int) -> Index:
        """The codes of texts that all take so many blocks."""
        before = _BLOCK * (blocks - 1)
        parts = [body.block(starts + at) for at in range(0, before, _BLOCK)]
        parts.append(body.block(starts + before) & _KEEP_OF_BLOCK.take(lengths - before, axis=0))
        hashes = (lengths.astype(np.uint64) ^ self._seed) * self._factor
        for part in parts:
            for word in part.T:
                hashes = (hashes ^ (hashes >> np.uint64(29)) ^ word) * self._factor
        found = self._look_up(hashes, lengths, parts)
        missing = np.flatnonzero(found < 0)
        if missing.size:
            self._learn(body, starts, lengths, hashes, missing)
            found = self._look_up(hashes, lengths, parts)
            for row in np.flatnonzero(found < 0).tolist():
                # Its places are taken by others, or there was no room for it.
                start = int(starts[row])
                found[row] = self._codes.get(body.raw[start : start + int(lengths[row])], TOO_LONG)
        return found

    def _look_up(self, hashes: Words, lengths: Index, parts: list[Words]) -> Index:
        found = self._probe(hashes, lengths, parts, 0)
        for probe in range(1, self._PROBES):
            if (found >= 0).all():
                break
            again = self._probe(hashes, lengths, parts, probe)
            found = np.where(found >= 0, found, again)
        return found

    def _probe(self, hashes: Words, lengths: Index, parts: list[Words], probe: int) -> Index:
        codes = self._slots.take(self._place(hashes, probe)).astype(np.int64)
        right = (codes >= 0) & (self._lengths.take(codes) == lengths)
        for part, known in zip(parts, self._blocks, strict=False):
            equal = known.take(codes).view("<u8") == part.ravel()
            right &= equal.view("<u4") == _ALL_FOUR
        codes[~right] = -1
        return codes

    def _place(self, hashes: Words, probe: int) -> Index:
        return ((hashes >> (self._shift - np.uint64(11 * probe))) & self._mask).astype(np.int64)

    def _learn(self, body: Body, starts: Index, lengths: Index, hashes: Words, rows: Index) -> None:
        _, firsts = np.unique(hashes[rows], return_index=True)
        for row in rows[np.sort(firsts)].tolist():
            start = int(starts[row])
            text = body.raw[start : start + int(lengths[row])]
            code = self._codes.get(text)
            if code is None:
                if self.is_full:
                    continue
                code = self._codes[text] = len(self.texts)
                self.texts.append(text)
                self._lengths[code] = len(text)
                padded = np.frombuffer(text.ljust(self.longest, b"\0"), f"V{_BLOCK}")
                for known, block in zip(self._blocks, padded, strict=True):
                    known[code] = block
            self._put(hashes[row : row + 1], code)

    def _put(self, hash_: Words, code: int) -> None:
        for probe in range(self._PROBES):
            place = int(self._place(hash_, probe)[0])
            if self._slots[place] < 0:
                break
        self._slots[place] = code


def ragged(octets: Bytes, starts: Index, lengths: Index) -> Bytes:
    """The texts octets[start:start + length], one after the other."""
    total = int(lengths.sum())
    if not total:
        return np.empty(0, np.uint8)
    ends = np.cumsum(lengths)
    places = np.arange(total, dtype=np.int64)
    places += np.repeat(starts - (ends - lengths), lengths)
    return octets.take(places)


def empty(size: int, fill: int, kind: Any = np.int64) -> Any:
    """An array of one value."""
    return np.full(size, fill, kind)
