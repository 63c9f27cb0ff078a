"""JSON as providers really send it: read fast when it has the expected shape, leniently when it has not.

A Shape decodes only the members that its struct names. A member of an unexpected type counts as absent, and text that
strict JSON refuses (a lone surrogate, bytes that are no UTF-8) is read all the same. Numbers with a point become
Decimal, never float. Nothing here raises for any bytes.
"""

import json
import re
import types
import typing
from decimal import Decimal, InvalidOperation
from typing import Any, Generic, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

NOT_THERE = msgspec.Raw(b"")
"""Stands for a raw member that an object lacks: the decoder takes no union of Raw with None."""

_BOM = b"\xef\xbb\xbf"
_ANY = msgspec.json.Decoder(float_hook=Decimal)
# The last is Decimal's word for an exponent beyond its own: 1e99999999999999999999.
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidOperation)


class Shape(Generic[S]):
    """The members wanted of one JSON object, as a struct whose fields all have defaults."""

    def __init__(self, struct: type[S]) -> None:
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct, float_hook=Decimal)

    def read(self, data: bytes) -> S | None:
        """The struct, or None when the bytes are not one JSON object."""
        try:
            return self._decoder.decode(data)
        except _REFUSED:
            pass
        loose = loads(data)
        return _struct(self._struct, loose) if isinstance(loose, dict) else None


class Run(Generic[S]):
    """Many JSON objects of one strict shape, decoded at once: None as soon as one is of another."""

    def __init__(self, struct: type[S]) -> None:
        # Of a list's type made here, not written: a value, not a type.
        self._decoder = msgspec.json.Decoder(list[struct], float_hook=Decimal)  # type: ignore[valid-type]

    def read(self, data: list[bytes]) -> list[S] | None:
        """The structs of these objects."""
        try:
            found = self._decoder.decode(b"[" + b",".join(data) + b"]")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        # Data that is no whole object may have become one together with its neighbour's.
        return found if len(found) == len(data) else None


def loads(data: bytes) -> Any:
    """Any JSON value; None when the bytes are none. Byte order mark and white space around it are allowed."""
    try:
        return _ANY.decode(data)
    except _REFUSED:
        pass
    try:
        # strict=False: control characters inside strings occur in hand-made replies.
        return json.loads(
            data.removeprefix(_BOM).decode("utf-8", "replace"), parse_float=_decimal, parse_constant=_none, strict=False
        )
    except (ValueError, RecursionError):
        return None


_ENCODER = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
_SORTED = msgspec.json.Encoder(enc_hook=str, decimal_format="number", order="sorted")


def encoded(value: Any, *, in_order: bool = False) -> bytes:
    """What loads() gave, as JSON again: numbers stay numbers. in_order: members sorted by name."""
    try:
        return (_SORTED if in_order else _ENCODER).encode(value)
    except (UnicodeEncodeError, RecursionError):
        return b"null"


def tail_object(data: bytes, name: str) -> Any:
    """The value of the last member `name` whose value is an object, cut out of JSON that is incomplete."""
    text = data.decode("utf-8", "replace")
    mark = f'"{name}"'
    at = len(text)
    for _ in range(8):
        at = text.rfind(mark, 0, at)
        if at < 0:
            return None
        rest = text[at + len(mark) :].lstrip(" \t\r\n:")
        if rest.startswith("{"):
            try:
                value, _end = _LOOSE.raw_decode(rest)
            except (ValueError, RecursionError):
                continue
            return value
    return None


_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{},]', re.DOTALL)


def head_object(data: bytes) -> bytes | None:
    """An object of the members that came whole before a JSON object breaks off; None when there are none."""
    if data[:1] != b"{":
        return None
    open_: list[bytes] = []
    end, closing = 0, b""
    for found in _TOKENS.finditer(data):
        token = found[0]
        if token in b"{[":
            open_.append(b"}" if token == b"{" else b"]")
        elif token in b"}]":
            if not open_:
                return None
            open_.pop()
        elif token == b",":
            end, closing = found.start(), b"".join(reversed(open_))
    return data[:end] + closing if end else None


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _none(_: str) -> None:
    """NaN and Infinity: no number that a bill could hold."""


_LOOSE = json.JSONDecoder(parse_float=_decimal, parse_constant=_none, strict=False)

_HINTS: dict[type, dict[str, Any]] = {}


def _struct(struct: type[S], values: dict[str, Any]) -> S:
    hints = _HINTS.get(struct)
    if hints is None:
        hints = _HINTS[struct] = typing.get_type_hints(struct)
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    found = {}
    for field, hint in hints.items():
        value = values.get(names[field])
        if value is not None:
            fits, fitted = _fit(hint, value)
            if fits:
                found[field] = fitted
    return struct(**found)


def _fit(hint: Any, value: Any) -> tuple[bool, Any]:
    """(True, the value as the hint wants it) or (False, None)."""
    if hint is Any:
        return True, value
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        for option in typing.get_args(hint):
            fits, fitted = _fit(option, value)
            if fits:
                return True, fitted
        return False, None
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            return False, None
        (item,) = typing.get_args(hint)
        return True, [fitted for fits, fitted in (_fit(item, v) for v in value) if fits]
    if isinstance(hint, type):
        if hint is msgspec.Raw:
            return True, msgspec.Raw(json.dumps(value, default=float).encode())
        if issubclass(hint, msgspec.Struct):
            return (True, _struct(hint, value)) if isinstance(value, dict) else (False, None)
        if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
            return True, value
    return False, None


MAX_COUNT = 1 << 50


def count(value: object) -> int | None:
    """A number of tokens: a whole number of at least 0, also when written as 12.0 or "12"; else None."""
    if type(value) is int:
        return value if 0 <= value < MAX_COUNT else None
    if isinstance(value, Decimal | float):
        return int(value) if 0 <= value < 1e15 and value == int(value) else None
    if isinstance(value, str):
        return int(value) if len(value) < 16 and value.isascii() and value.isdigit() else None
    return None


def text(value: object) -> str | None:
    """A non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def mapping(value: object) -> dict[str, Any]:
    """The object, or an empty one when the value is none."""
    return value if isinstance(value, dict) else {}
