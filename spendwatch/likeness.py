"""What makes two texts alike though not equal: a simhash, a text with its changing parts masked, the look of a failure.

Pure functions of text, cheap enough to run on every call, linear, and blind beyond a bounded part of a long text. What
they give still holds content (a masked text is a text): only the fingerprints made of it may leave the process.
"""

import re
from array import array
from itertools import repeat
from zlib import crc32

NORMALISED_CHARACTERS = 1024
"""How much of each end of a text is masked; what lies between is left out."""

SIMHASH_WORDS = 128
SIMHASH_BYTES = 2 * 1024
_LONG_WORD = 24


def simhash(data: bytes, seed: int, factors: tuple[int, ...]) -> int:
    """64 bits over the word trigrams of UTF-8 text: texts that differ in few words differ in few bits.

    seed: of the words' CRC-32. factors: six odd 29-bit numbers; with the seed they are the key. No words: 0.
    """
    words = data.lower().split(None, SIMHASH_WORDS)[:SIMHASH_WORDS]
    if not words:
        return 0
    if max(map(len, words)) > _LONG_WORD:
        words = [piece for word in words for piece in _pieces(word)][:SIMHASH_WORDS]
    hashes = array("Q", map(crc32, words, repeat(seed)))
    while len(hashes) < 3:
        hashes.append(0)
    return _majority(_trigrams(hashes, factors), len(hashes) - 2)


def _trigrams(hashes: "array[int]", factors: tuple[int, ...]) -> int:
    """The 64-bit hashes of all runs of three words, as the lanes of one integer (and two lanes of rubbish)."""
    lanes = int.from_bytes(hashes.tobytes(), "little")
    a, b, c, d, e, f = factors
    second, third = lanes >> 64, lanes >> 128
    # A product of a CRC-32 and a factor, three of them added, stays inside its lane.
    low = (lanes * a + second * b + third * c) >> 29 & _LOWER_HALVES
    high = (lanes * d + second * e + third * f) >> 29 & _LOWER_HALVES
    return low | high << 32


def _pieces(word: bytes) -> list[bytes]:
    """A long word in overlapping pieces: text without spaces (Chinese, Japanese, base64) has similar prints, too.

    Steps of three bytes are steps of one character in the scripts that write without spaces.
    """
    return [word] if len(word) <= _LONG_WORD else [word[at : at + 6] for at in range(0, len(word) - 3, 3)]


_LOWER_HALVES = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * SIMHASH_WORDS, "little")
_MASKS: dict[int, int] = {}


def _majority(lanes: int, count: int) -> int:
    """For each of 64 bit positions: whether it is set in more than half of the first `count` lanes.

    Counts all 64 positions at once: the lanes are folded in halves, each position's count held in bit planes.
    """
    planes = [lanes & ((1 << 64 * count) - 1)]
    width = 1 << (count - 1).bit_length()
    while width > 1:
        width //= 2
        shift = 64 * width
        mask = _MASKS.get(width)
        if mask is None:
            mask = _MASKS[width] = (1 << shift) - 1
        carry = 0
        folded = []
        for plane in planes:
            a, b = plane & mask, plane >> shift
            either = a ^ b
            folded.append(either ^ carry)
            carry = a & b | carry & either
        folded.append(carry)
        planes = folded
    half = count // 2
    above, equal = 0, (1 << 64) - 1
    for place in range(len(planes) - 1, -1, -1):
        if half >> place & 1:
            equal &= planes[place]
        else:
            above |= equal & planes[place]
            equal &= ~planes[place]
    return above


_FAILURES = (
    "error", "exception", "traceback", "fatal", "errno", "failed", "failure", "panic", "denied", "refused", "timed out",
    "not found", "no such ", "unauthorized", "forbidden", "unprocessable",
)  # fmt: skip


def looks_like_error(text: str) -> bool:
    """Whether a message reads like a failure, judged by its first and last 400 characters."""
    if len(text) > 800:
        text = f"{text[:400]}\n{text[-400:]}"
    text = text.lower()
    for word in _FAILURES:  # noqa: SIM110  # any() of a generator takes twice as long
        if word in text:
            return True
    return False


# To lower case, every digit to 0, and what separates words in code, JSON and paths to a space.
_PLAIN = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789\"'`(){}[]<>,;=&|/\\*", b"abcdefghijklmnopqrstuvwxyz000000000" + b" " * 19
)
_RUN = re.compile(rb"#(?: #)+")
_TEMPORARY_NAME = re.compile(rb"(?<![^ ])tmp[^ ]*")
_TEMPORARY = re.compile(rb"(?:/tmp/|/var/folders/)[^\s'\"]*")


def mask(text: str) -> str:
    """The words of a text in lower case, each run of changing ones as "#"; of a long text, of its two ends.

    A word changes from one repetition to the next without meaning anything when it holds a digit (numbers, clock times,
    durations, ids, hashes) or is a temporary name or path.
    """
    if len(text) > 2 * NORMALISED_CHARACTERS:
        text = f"{text[:NORMALISED_CHARACTERS]} \x1f {text[-NORMALISED_CHARACTERS:]}"
    data = text.encode("utf-8", "surrogatepass")
    temporary = b"tmp" in data or b"/var/folders/" in data
    if temporary:
        data = _TEMPORARY.sub(b" 0 ", data)
    data = b" ".join(data.translate(_PLAIN).split())
    if temporary:
        data = _TEMPORARY_NAME.sub(b"0", data)
    kept: list[bytes] = []
    done = 0
    while (at := data.find(b"0", done)) >= 0:
        word = data.rfind(b" ", done, at) + 1 or done
        kept += (data[done:word], b"#")
        end = data.find(b" ", at)
        done = end if end >= 0 else len(data)
    kept.append(data[done:])
    return _RUN.sub(b"#", b"".join(kept)).decode("utf-8", "replace")
