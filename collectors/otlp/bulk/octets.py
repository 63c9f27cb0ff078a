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

    def __len__(self) -> int:
        return len(self.raw)

    def at(self, places: Index) -> Index:
        """The byte at each place."""
        return self.octets.take(places).astype(np.int64)

    def word(self, places: Index) -> Words:
        """The eight bytes from each place on, the first one lowest."""
        return self._words[places]


def first_bytes(words: Words, counts: Index) -> Words:
    """The words with all but their first bytes set to zero; counts may be beyond 8."""
    return words & _KEEP.take(np.minimum(counts, 8))


class Interner:
    """Texts -> codes from 0 on, the same code for the same text until clear()."""

    _PROBES = 3

    def __init__(self, *, longest: int, capacity: int, slot_bits: int = 17) -> None:
        """longest: bytes of a text that is taken, whole words. capacity: how many are remembered."""
        self.longest = longest
        self.capacity = capacity
        self._shift = np.uint64(64 - slot_bits)
        self._mask = np.uint64((1 << slot_bits) - 1)
        self._factor = np.uint64(secrets.randbits(64) | 1)
        self._seed = np.uint64(secrets.randbits(64))
        self._words = [np.zeros(capacity, np.uint64) for _ in range(longest // 8)]
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
        hashes = (lengths.astype(np.uint64) ^ self._seed) * self._factor
        words: list[tuple[Index | None, Words]] = []
        rows: Index | None = None
        for number in range(self.longest // 8):
            if number:
                rows = np.flatnonzero(lengths > 8 * number)
                if not rows.size:
                    break
                word = first_bytes(body.word(starts[rows] + 8 * number), lengths[rows] - 8 * number)
                hashes[rows] = self._mixed(hashes[rows], word)
            else:
                word = first_bytes(body.word(starts), lengths)
                hashes = self._mixed(hashes, word)
            words.append((rows, word))
        found = self._look_up(hashes, lengths, words)
        missing = np.flatnonzero((found < 0) & (lengths <= self.longest))
        if missing.size:
            self._learn(body, starts, lengths, hashes, missing)
            found = self._look_up(hashes, lengths, words)
            for row in np.flatnonzero((found < 0) & (lengths <= self.longest)).tolist():
                # Its places are taken by others, or there was no room for it.
                start = int(starts[row])
                found[row] = self._codes.get(body.raw[start : start + int(lengths[row])], TOO_LONG)
        return found

    def _mixed(self, hashes: Words, word: Words) -> Words:
        mixed = (hashes ^ word) * self._factor
        return mixed ^ (mixed >> np.uint64(29))

    def _look_up(self, hashes: Words, lengths: Index, words: list[tuple[Index | None, Words]]) -> Index:
        found = self._probe(hashes, lengths, words, 0)
        for probe in range(1, self._PROBES):
            if (found >= 0).all():
                break
            again = self._probe(hashes, lengths, words, probe)
            found = np.where(found >= 0, found, again)
        return found

    def _probe(self, hashes: Words, lengths: Index, words: list[tuple[Index | None, Words]], probe: int) -> Index:
        codes = self._slots.take(self._place(hashes, probe)).astype(np.int64)
        wrong = (codes < 0) | (self._lengths.take(codes) != lengths)
        for (rows, word), known in zip(words, self._words, strict=False):
            if rows is None:
                wrong |= known.take(codes) != word
            else:
                wrong[rows] |= known.take(codes[rows]) != word
        codes[wrong] = -1
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
                padded = np.frombuffer(text.ljust(self.longest, b"\0"), "<u8")
                for known, word in zip(self._words, padded, strict=True):
                    known[code] = word
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
