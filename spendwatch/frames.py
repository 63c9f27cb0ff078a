"""Frames: how records lie in a segment's file. 4 bytes length, 4 bytes CRC-32, payload; little endian. Pure."""

import struct
from zlib import crc32

MAX_RECORD = 1024 * 1024
"""Bytes of one record; a call with more attributes than that is not kept."""

FRAME = struct.Struct("<II")
OVERHEAD = FRAME.size
"""Bytes that a record takes in a file beside its own."""


def frame(payload: bytes) -> bytes:
    """A record as it is written."""
    return FRAME.pack(len(payload), crc32(payload)) + payload


def run(data: bytes, about: int) -> bytes:
    """The whole frames that these bytes begin with, up to the one with which they are `about` bytes long."""
    at = 0
    while at < about and at + OVERHEAD <= len(data):
        length, _ = FRAME.unpack_from(data, at)
        if length > MAX_RECORD or at + OVERHEAD + length > len(data):
            break
        at += OVERHEAD + length
    return data[:at]


def records(data: bytes, most: int) -> tuple[list[bytes], int, int]:
    """The records that these bytes begin with, at most so many; the bytes they take, and how many were damaged."""
    out: list[bytes] = []
    at = torn = 0
    while at + OVERHEAD <= len(data) and len(out) < most:
        length, crc = FRAME.unpack_from(data, at)
        after = at + OVERHEAD + length
        if length > MAX_RECORD or after > len(data):
            break
        payload = data[at + OVERHEAD : after]
        if length and crc32(payload) == crc:
            out.append(payload)
        else:
            torn += 1
        at = after
    return out, at, torn
