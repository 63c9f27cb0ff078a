"""Encoded attribute values -> numbers and texts, many at once.

Each function takes the places of AnyValues and tells which of them are what they are read as, in the plainest form;
the others (another type, a negative count, text beyond ASCII) make their span odd. Amounts are whole pico-dollars:
a decimal text is never made a float. Never here: what a value means.
"""

import numpy as np
from numpy.typing import NDArray

from collectors.otlp.bulk.fields import delimited
from collectors.otlp.bulk.octets import Body, Index, Mask, Words, first_bytes
from collectors.otlp.spans import MAX_TEXT

_STRING, _BOOL, _INT, _DOUBLE, LIST = 0x0A, 0x10, 0x18, 0x21, 0x2A
TEXT = _STRING
_MAX_UINT32 = 2**32 - 1
_HIGH_BITS = np.uint64(0x8080808080808080)

_NIBBLES = np.full(256, 255, np.uint8)
for _digit, _letters in enumerate("0123456789abcdef"):
    _NIBBLES[ord(_letters)] = _digit
_DIGITS = np.full(256, 99, np.uint8)
_DIGITS[48:58] = np.arange(10)
_DOT = 46


def kind(body: Body, starts: Index, lengths: Index) -> Index:
    """Which of AnyValue's kinds each value is, by its tag; 0 for an empty one."""
    return np.where(lengths > 0, body.at(starts), 0)


def texts(body: Body, starts: Index, lengths: Index) -> tuple[Index, Index, Mask]:
    """(starts, lengths, good) of plain texts: ASCII, not empty, not too long to be kept."""
    begin, size = delimited(body, starts + 1)
    good = (kind(body, starts, lengths) == _STRING) & (begin + size == starts + lengths) & (size > 0)
    good &= size <= MAX_TEXT
    begin, size = np.where(good, begin, 0), np.where(good, size, 0)
    good &= are_ascii(body, begin, size)
    return begin, size, good


def are_ascii(body: Body, starts: Index, lengths: Index) -> Mask:
    """Which of the texts are ASCII."""
    good = np.ones(len(starts), np.bool_)
    rows = np.arange(len(starts))
    for at in range(0, int(lengths.max(initial=0)), 8):
        rows = rows[lengths[rows] > at] if at else rows
        word = first_bytes(body.word(starts[rows] + at), lengths[rows] - at)
        good[rows] &= (word & _HIGH_BITS) == 0
    return good


def are_plain(body: Body, starts: Index, lengths: Index) -> Mask:
    """Which values are what they seem: doubles, plain texts or counts."""
    good: Mask = (kind(body, starts, lengths) == _DOUBLE) & (lengths == 9)
    if not good.all():
        rest = np.flatnonzero(~good)
        good[rest] = texts(body, starts[rest], lengths[rest])[2] | counts(body, starts[rest], lengths[rest])[1]
    return good


def counts(body: Body, starts: Index, lengths: Index) -> tuple[Index, Mask]:
    """(numbers, good) of integers from 0 to 2^32 - 1."""
    size = lengths - 1
    good = (kind(body, starts, lengths) == _INT) & (size >= 1) & (size <= 5)
    number = np.zeros(len(starts), np.int64)
    for at in range(5):
        octet = body.at(starts + 1 + at)
        inside = at < size
        number |= np.where(inside, (octet & 0x7F) << 7 * at, 0)
        # The last byte alone has no high bit.
        good &= ~inside | ((octet >= 0x80) == (at < size - 1))
        if not (size > at + 1).any():
            break
    return number, good & (number <= _MAX_UINT32)


def flags(body: Body, starts: Index, lengths: Index) -> tuple[NDArray[np.uint8], Mask]:
    """(0 or 1, good) of booleans."""
    octet = body.octets.take(starts + 1)
    return octet, (kind(body, starts, lengths) == _BOOL) & (lengths == 2) & (octet <= 1)


def doubles(body: Body, starts: Index, lengths: Index) -> tuple[NDArray[np.float64], Mask]:
    """(numbers, good) of finite doubles."""
    number = body.word(starts + 1).view(np.float64)
    return number, (kind(body, starts, lengths) == _DOUBLE) & (lengths == 9) & np.isfinite(number)


def hashes(body: Body, starts: Index, lengths: Index) -> tuple[Words, Mask]:
    """(numbers, good) of texts of 16 lower-case hex digits."""
    good = (lengths == 18) & (kind(body, starts, lengths) == _STRING) & (body.octets.take(starts + 1) == 16)
    digits = np.empty((len(starts), 2), np.uint64)
    digits[:, 0], digits[:, 1] = body.word(starts + 2), body.word(starts + 10)
    nibbles = _NIBBLES.take(digits.view(np.uint8))
    good &= nibbles.max(axis=1, initial=0) < 16
    pairs = nibbles[:, 0::2] << 4 | nibbles[:, 1::2]
    return np.ascontiguousarray(pairs).view(">u8").ravel().astype(np.uint64), good


def amounts(body: Body, starts: Index, lengths: Index) -> tuple[Index, Mask]:
    """(pico-dollars, good) of plain decimal texts of up to 16 characters, 5 digits before the point and 12 behind.

    Below 100,000 USD, then, and with nothing to round.
    """
    size = lengths - 2
    good = (kind(body, starts, lengths) == _STRING) & (size >= 1) & (size <= 16)
    good &= body.at(starts + 1) == size
    text = np.empty((len(starts), 2), np.uint64)
    text[:, 0] = first_bytes(body.word(starts + 2), np.maximum(size, 0))
    text[:, 1] = first_bytes(body.word(starts + 10), np.maximum(size - 8, 0))
    letters = text.view(np.uint8)
    total = np.zeros(len(starts), np.int64)
    whole = np.full(len(starts), -1, np.int64)
    for at in range(int(size.max(initial=0)) if len(size) else 0):
        if at == 16:
            break
        letter = letters[:, at]
        digit = _DIGITS.take(letter)
        inside, is_dot = at < size, letter == _DOT
        good &= ~inside | (digit < 10) | (is_dot & (whole < 0))
        whole[inside & is_dot] = at
        total = np.where(inside & (digit < 10), total * 10 + digit, total)
    fraction = np.where(whole >= 0, size - whole - 1, 0)
    whole = np.where(whole >= 0, whole, size)
    good &= (whole >= 1) & (whole <= 5) & (fraction <= 12) & ((fraction > 0) | (whole == size))
    return total * 10 ** np.clip(12 - fraction, 0, 12), good
