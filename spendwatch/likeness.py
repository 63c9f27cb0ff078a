"""What makes two texts alike though not equal: a simhash, a text with its changing parts masked, the look of a failure.

Pure functions of text, cheap enough to run on every call, linear, and blind beyond a bounded part of a long text. What
they give still holds content (a masked text is a text): only the fingerprints made of it may leave the process.
"""

import re
import sys
from array import array
from collections.abc import Sequence
from itertools import repeat
from zlib import crc32

NORMALISED_BYTES = 1024
"""How much of each end of a text is masked; what lies between is left out."""

SIMHASH_BYTES = 768
BINS = 256
_MAX_CUTS = 127

# To lower case, and what a text is cut at to a line feed: some letters and digits, seldom enough that a piece is two or
# three words long, and four of the 64 values with which UTF-8 goes on, for the scripts that have none of the letters.
_CUTS = b"lcuLCU37\n" + bytes((0x83, 0x93, 0xA3, 0xB3))
_PIECES = bytes(0x0A if byte in _CUTS else byte for byte in bytes(range(256)).lower()).replace(b"\t", b" ")
_LANES = int.from_bytes(b"\x01" * 64, "big")
_LOWEST = 0 if sys.byteorder == "little" else 3


def bins(secret: bytes) -> list[int]:
    """What one piece of text adds to a simhash, by its hash: 64 lanes of a byte, 0 or 1. secret: BINS * 4 bytes.

    Half of them are the others' opposites: of pieces that share a bin by chance as many pull together as apart.
    """
    spread = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
    ones = [
        int.from_bytes(b"".join(map(spread.__getitem__, secret[at : at + 8])), "big") for at in range(0, 4 * BINS, 8)
    ]
    return [*ones, *(_LANES - one for one in ones)]


def simhash(data: bytes, seed: int, by: Sequence[int]) -> int:
    """64 bits over the pieces of a text's first SIMHASH_BYTES: texts that differ in few pieces differ in few bits.

    A text is cut where its own bytes say so, and not every so many bytes: what is put in or left out changes the piece
    it is in, and no other. How often a piece occurs, and where, doesn't count. seed: of the pieces' CRC-32. by: bins();
    with the seed the key. Blank text: 0.
    """
    pieces = data[:SIMHASH_BYTES].strip().translate(_PIECES).split(b"\n", _MAX_CUTS)
    if len(pieces) == 1 and not pieces[0]:
        return 0
    seen = set(array("I", map(crc32, pieces, repeat(seed))).tobytes()[_LOWEST::4])
    lanes = sum(map(by.__getitem__, seen)) + _LANES * (127 - len(seen) // 2)
    # A lane above half of the count has overflown into its highest bit. Eight of these are brought into one byte.
    bits = lanes >> 7 & _LANES
    bits |= bits >> 7
    bits |= bits >> 14
    bits |= bits >> 28
    return int.from_bytes(bits.to_bytes(64, "big")[7::8], "big")


_FAILURES = (
    "error", "exception", "traceback", "fatal", "errno", "failed", "failure", "panic", "denied", "refused", "timed out",
    "not found", "no such ", "unauthorized", "forbidden", "unprocessable",
)  # fmt: skip


def looks_like_error(text: str) -> bool:
    """Whether a message reads like a failure, judged by its first and last 400 characters."""
    if len(text) > 800:
        text = f"{text[:400]}\n{text[-400:]}"
    return any(map(text.lower().__contains__, _FAILURES))


# To lower case, every digit to 0, and what separates words in code, JSON and paths to a space.
_PLAIN = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789\"'`(){}[]<>,;=&|/\\*", b"abcdefghijklmnopqrstuvwxyz000000000" + b" " * 19
)
_RUN = re.compile(rb"#(?: #)+")
_TEMPORARY_NAME = re.compile(rb"(?<![^ ])tmp[^ ]*")
_TEMPORARY = re.compile(rb"(?:/tmp/|/var/folders/)[^\s'\"]*")


def mask(data: bytes) -> bytes:
    """The words of a text in lower case, each run of changing ones as "#"; of a long text, of its two ends.

    A word changes from one repetition to the next without meaning anything when it holds a digit (numbers, clock times,
    durations, ids, hashes) or is a temporary name or path.
    """
    if len(data) > 2 * NORMALISED_BYTES:
        data = b"%b \x1f %b" % (data[:NORMALISED_BYTES], data[-NORMALISED_BYTES:])
    temporary = b"tmp" in data or b"/var/folders/" in data
    if temporary:
        data = _TEMPORARY.sub(b" 0 ", data)
    data = b" ".join(data.translate(_PLAIN).split())
    if temporary:
        data = _TEMPORARY_NAME.sub(b"0", data)
    at = data.find(b"0")
    if at < 0:
        return _RUN.sub(b"#", data) if b"# #" in data else data
    kept: list[bytes] = []
    done = 0
    while at >= 0:
        word = data.rfind(b" ", done, at) + 1 or done
        kept += (data[done:word], b"#")
        end = data.find(b" ", at)
        done = end if end >= 0 else len(data)
        at = data.find(b"0", done)
    kept.append(data[done:])
    return _RUN.sub(b"#", b"".join(kept))
