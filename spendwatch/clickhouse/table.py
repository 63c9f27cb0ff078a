"""Rows of llm_calls as columns of numpy, and those columns as the bytes that ClickHouse takes.

The server's collector builds thousands of rows at a time this way; what a column means is said in columns.py alone.
The bytes are ClickHouse's Native format (clickhouse.com/docs/interfaces/formats/Native). Never here: a connection.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spendwatch.calls import PricedCall
from spendwatch.clickhouse.columns import TYPES

Index = NDArray[np.int64]

_NUMBERS = {
    "UInt8": "<u1", "Bool": "<u1", "UInt16": "<u2", "UInt32": "<u4", "UInt64": "<u8", "Decimal(18, 12)": "<i8",
    "DateTime64(3, 'UTC')": "<i8", "DateTime64(6, 'UTC')": "<i8", "Int64": "<i8", "FixedString(8)": "V8",
    "FixedString(16)": "V16",
}  # fmt: skip


@dataclass(slots=True)
class Numbers:
    """A column of numbers. known: which rows have one, None when all do."""

    values: NDArray[Any]
    known: NDArray[np.bool_] | None = None

    def take(self, rows: Index) -> "Numbers":
        """These rows."""
        return Numbers(self.values[rows], None if self.known is None else self.known[rows])

    @staticmethod
    def join(parts: "Sequence[Numbers]") -> "Numbers":
        """The parts' rows, one after the other."""
        known = None
        if any(part.known is not None for part in parts):
            known = np.concatenate(
                [np.ones(len(part.values), np.bool_) if part.known is None else part.known for part in parts]
            )
        return Numbers(np.concatenate([part.values for part in parts]), known)


@dataclass(slots=True)
class Texts:
    """A column of UTF-8 texts octets[start:start + length]."""

    octets: NDArray[np.uint8]
    starts: Index
    lengths: Index

    def take(self, rows: Index) -> "Texts":
        """These rows."""
        return Texts(self.octets, self.starts[rows], self.lengths[rows])

    @staticmethod
    def join(parts: "Sequence[Texts]") -> "Texts":
        """The parts' rows, one after the other."""
        behind = np.cumsum([0] + [len(part.octets) for part in parts])
        return Texts(
            np.concatenate([part.octets for part in parts]),
            np.concatenate([part.starts + shift for part, shift in zip(parts, behind[:-1], strict=True)]),
            np.concatenate([part.lengths for part in parts]),
        )

    @staticmethod
    def of(values: Sequence[str]) -> "Texts":
        """A column of Python's texts."""
        encoded = [value.encode("utf-8", "replace") for value in values]
        lengths = np.array([len(value) for value in encoded], np.int64)
        return Texts(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths) - lengths, lengths)


@dataclass(slots=True)
class Coded:
    """A column of few different values, texts, lists of texts or maps of texts: values[code]."""

    codes: Index
    values: list[Any]

    def take(self, rows: Index) -> "Coded":
        """These rows."""
        return Coded(self.codes[rows], self.values)

    @staticmethod
    def join(parts: "Sequence[Coded]") -> "Coded":
        """The parts' rows, one after the other."""
        behind = np.cumsum([0] + [len(part.values) for part in parts])
        return Coded(
            np.concatenate([part.codes + shift for part, shift in zip(parts, behind[:-1], strict=True)]),
            [value for part in parts for value in part.values],
        )


Column = Numbers | Texts | Coded

Source = Callable[[int], PricedCall]
"""Makes the call of a number once more, the same that the row was made of."""


@dataclass(slots=True)
class Table:
    """Rows by columns, each column of TYPES by its name."""

    columns: dict[str, Column]
    rows: int
    sources: "list[Source]" = field(default_factory=list)
    source: Index = field(default_factory=lambda: np.empty(0, np.int64))
    """Of each row, which of the sources knows the call again, and there under which number."""
    number: Index = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Self:
        """Finished rows, each in the order of TYPES."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(TYPES)
        made = {name: column(name, values) for name, values in zip(TYPES, columns, strict=True)}
        nowhere = np.full(len(rows), -1, np.int64)
        return cls(made, len(rows), source=nowhere, number=nowhere)

    @classmethod
    def join(cls, tables: "Sequence[Table]") -> Self:
        """The rows of several tables."""
        made: dict[str, Column] = {}
        for name in TYPES:
            parts: list[Any] = [table.columns[name] for table in tables]
            made[name] = parts[0] if len(parts) == 1 else type(parts[0]).join(parts)
        behind = np.cumsum([0] + [len(table.sources) for table in tables])
        return cls(
            made,
            sum(table.rows for table in tables),
            [source for table in tables for source in table.sources],
            np.concatenate([table.source + shift for table, shift in zip(tables, behind[:-1], strict=True)]),
            np.concatenate([table.number for table in tables]),
        )

    def take(self, rows: Index) -> "Table":
        """These rows."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Table(columns, len(rows), self.sources, self.source[rows], self.number[rows])

    def call(self, row: int) -> PricedCall:
        """The call in a row, as an object."""
        return self.sources[int(self.source[row])](int(self.number[row]))

    def joined_by(self, rows: Sequence[Sequence[Any]], *, received_ms: int) -> "Table":
        """This table as received at a time, and these finished rows."""
        received: Column = Numbers(np.full(self.rows, received_ms, np.int64))
        mine = Table({**self.columns, "received_at": received}, self.rows, self.sources, self.source, self.number)
        return Table.join([mine, Table.of(rows)]) if rows else mine

    def blocks(self, most: int) -> "Iterator[Table]":
        """The rows month by month, at most so many together; none when there are none."""
        months = self.numbers("started_at").astype("<M8[us]").astype("<M8[M]").astype(np.int64)
        for month in np.unique(months).tolist():
            rows = np.flatnonzero(months == month)
            whole = self if len(rows) == self.rows else self.take(rows)
            for start in range(0, whole.rows, most):
                yield whole if whole.rows <= most else whole.take(np.arange(start, min(start + most, whole.rows)))

    def numbers(self, name: str) -> NDArray[Any]:
        """The values of a column of numbers."""
        found = self.columns[name]
        assert isinstance(found, Numbers), name  # noqa: S101  # a name of another kind is our own mistake
        return found.values

    def native(self) -> bytes:
        """The rows as one block in the Native format."""
        out = [_varint(len(TYPES)), _varint(self.rows)]
        for name, kind in TYPES.items():
            out += [_text(name), _text(kind.insert_name), _encoded(self.columns[name], kind.insert_name)]
        return b"".join(out)


def column(name: str, values: Sequence[Any]) -> Column:
    """A column of TYPES with these values, as a row of columns.values() has them."""
    kind = TYPES[name].insert_name
    plain = kind.removeprefix("Nullable(").removesuffix(")") if kind.startswith("Nullable(") else kind
    if plain in _NUMBERS:
        if plain is kind:
            return Numbers(np.array(values, _NUMBERS[plain]))
        known = np.array([value is not None for value in values], np.bool_)
        return Numbers(np.array([value or 0 for value in values], _NUMBERS[plain]), known)
    if kind == "String":
        return Texts.of(values)
    codes: dict[Any, int] = {}
    kept: list[Any] = []
    numbers = np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        key = value if isinstance(value, str) else repr(value)
        code = codes.get(key)
        if code is None:
            code = codes[key] = len(kept)
            kept.append(value)
        numbers[row] = code
    return Coded(numbers, kept)


def _encoded(column: Column, kind: str) -> bytes:
    if isinstance(column, Numbers):
        plain = kind.removeprefix("Nullable(").removesuffix(")") if kind.startswith("Nullable(") else kind
        values = column.values.astype(_NUMBERS[plain], copy=False).tobytes()
        if not kind.startswith("Nullable("):
            return values
        if column.known is None:
            return bytes(len(column.values)) + values
        return (~column.known).tobytes() + values
    if isinstance(column, Texts):
        return _strings(column)
    if kind == "LowCardinality(String)":
        return _VERSION + _labels(column)
    if kind == "Array(String)":
        _, flat, ends = _flat(column, [list(value) for value in column.values])
        return ends + b"".join(map(_text, flat))
    if kind == "Map(LowCardinality(String), String)":
        names, keys, ends = _flat(column, [list(value) for value in column.values])
        _, values_, _ = _flat(column, [list(value.values()) for value in column.values])
        labels = _labels(Coded(names, keys)) if len(keys) else b""
        return _VERSION + ends + labels + b"".join(map(_text, values_))
    raise TypeError(f"no way to write a column of {kind}: give table.py one")


def _flat(column: Coded, items: list[list[str]]) -> tuple[Index, list[str], bytes]:
    """(0..n, all items of all rows, where each row's end): an array column's parts."""
    sizes = np.array([len(some) for some in items] or [0], np.int64)
    ends = np.cumsum(sizes.take(column.codes)).astype("<u8").tobytes()
    flat = [item for code in column.codes[sizes.take(column.codes) > 0].tolist() for item in items[code]]
    return np.arange(len(flat)), flat, ends


_VERSION = (1).to_bytes(8, "little")
"""Of LowCardinality's serialization: it stands before the column, also when that is inside a Map."""
_OWN_DICTIONARY = 1 << 9 | 1 << 10


def _labels(column: Coded) -> bytes:
    """LowCardinality: the different values that occur, and for each row which one."""
    used = np.flatnonzero(np.bincount(column.codes, minlength=len(column.values)))
    numbers: dict[str, int] = {}
    local = np.zeros(len(column.values), np.int64)
    for code in used.tolist():
        local[code] = numbers.setdefault(column.values[code], len(numbers))
    width = 0 if len(numbers) <= 1 << 8 else 1 if len(numbers) <= 1 << 16 else 2
    keys = local.take(column.codes).astype(f"<u{1 << width}").tobytes()
    return b"".join(
        [
            (_OWN_DICTIONARY | width).to_bytes(8, "little"),
            len(numbers).to_bytes(8, "little"),
            *map(_text, numbers),
            len(column.codes).to_bytes(8, "little"),
            keys,
        ]
    )


def _strings(column: Texts) -> bytes:
    lengths, count = column.lengths, len(column.lengths)
    if not count:
        return b""
    size = int(lengths[0])
    if size < 0x80 and (lengths == size).all() and (np.diff(column.starts) == size).all():
        # Ids: all of one size, one after the other.
        grid = np.empty((count, size + 1), np.uint8)
        grid[:, 0] = size
        start = int(column.starts[0])
        grid[:, 1:] = column.octets[start : start + count * size].reshape(count, size)
        return grid.tobytes()
    heads = 1 + (lengths >= 0x80) + (lengths >= 0x4000)
    if (lengths >= 0x200000).any():
        return b"".join(_text(_slice(column, row)) for row in range(count))
    ends = np.cumsum(lengths + heads)
    begins = ends - lengths
    out = np.empty(int(ends[-1]), np.uint8)
    head = begins - heads
    out[head] = lengths & 0x7F | (heads > 1) << 7
    two = heads > 1
    if two.any():
        out[head[two] + 1] = lengths[two] >> 7 & 0x7F | (heads[two] > 2) << 7
        three = heads > 2
        out[head[three] + 2] = lengths[three] >> 14
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[np.repeat(begins, lengths) + within] = column.octets.take(np.repeat(column.starts, lengths) + within)
    return out.tobytes()


def _slice(column: Texts, row: int) -> bytes:
    start = int(column.starts[row])
    return column.octets[start : start + int(column.lengths[row])].tobytes()


def _text(value: str | bytes) -> bytes:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
