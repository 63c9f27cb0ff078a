"""Encoded span attributes -> names and values, remembering how those seen before were read.

Of the some forty attributes of a call most are the same for thousands of calls, and the others differ behind the same
first bytes. So each KeyValue's bytes are first looked up whole, then by their head (name, type and length); only what
is new is given to protobuf. Invariant: the result is that of protobuf's own decoder. The tables are bounded, and hold
no bytes of attributes that are not wanted. Never here: what an attribute means.
"""

from collections.abc import Iterable
from struct import unpack

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collectors.otlp.dialects import PACKED
from collectors.otlp.spans import MAX_TEXT, Wanted, number, text

_MAX_KNOWN = 20_000
_MAX_HEADS = 4_000
_LONGEST_KNOWN = 200

_NEVER_TWICE = ("gen_ai.response.id", "spendwatch.cost.reported", "spendwatch.cost.upstream", "spendwatch.cost.listed")
_HASHES = "spendwatch.fingerprint."
# Of the fingerprint these few repeat; the others are hashes of what was said last.
_HASHES_THAT_REPEAT = (f"{_HASHES}system", f"{_HASHES}last_role")

_Head = tuple[str, int, bool]
"""(name, length of the whole, whether the whole is worth remembering)"""


class Attributes:
    """Reads attributes of the wanted names. May be used by several threads: what they race for is only remembered."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._known: dict[bytes, tuple[str, object]] = {}
        self._texts: dict[bytes, _Head] = {}
        self._doubles: dict[bytes, str] = {}
        self._unwanted: set[bytes] = set()

    def read(self, items: Iterable[bytes], out: dict[str, object]) -> dict[str, object]:
        """Put the wanted ones into `out`, the last of a name winning, and return it.

        Raises google.protobuf's DecodeError for what is no KeyValue.
        """
        known, texts, doubles = self._known.get, self._texts.get, self._doubles.get
        for item in items:
            pair = known(item)
            if pair is not None:
                out[pair[0]] = pair[1]
                continue
            if len(item) > 6:
                start = item[1] + 6
                head = texts(item[:start])
                if head is not None and head[1] == len(item):
                    try:
                        found = item[start:].decode("ascii")
                    except UnicodeDecodeError:
                        pass
                    else:
                        name = head[0]
                        out[name] = found
                        if head[2]:
                            self._remember(item, name, found)
                        continue
                name_ = doubles(item[: start - 1])
                if name_ is not None and len(item) == start + 7:
                    value = number(unpack("<d", item[-8:])[0])
                    if value is not None:
                        out[name_] = value
                    continue
                if item[0] == 0x0A and item[2 : start - 4] in self._unwanted:
                    continue
            self._new(item, out)
        return out

    def _new(self, item: bytes, out: dict[str, object]) -> None:
        if self._pass_over(item):
            return
        pair = KeyValue.FromString(item)
        key = pair.key
        encoded = key.encode()
        # What an attribute looks like from every encoder: the key of a length below 128 first, the value right after.
        start = len(encoded) + 6
        plain = len(encoded) < 0x80 and item.startswith(b"\x0a" + bytes((len(encoded),)) + encoded + b"\x12")
        if not self._wanted(key):
            return
        value = read_value(pair.value)
        if value is None:
            return
        out[key] = value
        if not plain or len(item) > _LONGEST_KNOWN:
            return
        if isinstance(value, str):
            size = len(item) - start
            if size >= 0 and item[start - 3 : start] == bytes((size + 2, 0x0A, size)):
                if len(self._texts) >= _MAX_HEADS:
                    self._texts.clear()
                self._texts[item[:start]] = (key, len(item), _repeats(key))
        elif isinstance(value, float):
            if item[start - 3 : start - 1] == b"\x09\x21" and len(item) == start + 7:
                if len(self._doubles) >= _MAX_HEADS:
                    self._doubles.clear()
                self._doubles[item[: start - 1]] = key
        else:
            self._remember(item, key, value)

    def _pass_over(self, item: bytes) -> bool:
        """Whether the name, which stands first, is not wanted: then nobody looks at the value, whatever it is."""
        if len(item) <= 6 or item[0] != 0x0A or item[1] >= 0x80:
            return False
        encoded = item[2 : item[1] + 2]
        try:
            wanted = self._wanted(encoded.decode())
        except UnicodeDecodeError:
            return False
        if wanted or len(encoded) < item[1]:
            return False
        if len(self._unwanted) < _MAX_HEADS:
            self._unwanted.add(encoded)
        return True

    def _remember(self, item: bytes, name: str, value: object) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[item] = (name, value)


def read_value(value: AnyValue) -> object:
    """The value as Python has it; None for what no attribute of ours is (maps, bytes, nested arrays)."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        found = value.string_value
        return found if len(found) <= MAX_TEXT and found.isascii() else text(found)
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return number(value.double_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "array_value":
        scalars = (read_value(item) for item in value.array_value.values if not item.HasField("array_value"))
        return [scalar for scalar in scalars if scalar is not None]
    return None


def _repeats(name: str) -> bool:
    if name in PACKED:
        return False
    if name.startswith(_HASHES):
        return name in _HASHES_THAT_REPEAT
    return name not in _NEVER_TWICE


__all__ = ["Attributes", "DecodeError", "read_value"]
