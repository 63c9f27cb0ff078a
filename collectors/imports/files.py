"""A file of calls, row by row from any place in it: CSV, JSON lines (both also gzipped) or Parquet.

Memory is bounded by one row, for Parquet by one batch of rows of it. A row that can't be read is one Broken, and the
next one follows. Numbers with a point come as text or Decimal, never as float, where the format says them exactly.
"""

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import Any

from spendwatch.errors import ConfigError

MAX_ROW = 1024 * 1024
"""Characters of one row. A call without its content is a thousandth of that."""
_BATCH_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row: which it is (1 is the first), where it ends in the file (lines, or rows of Parquet), its values."""

    number: int
    line: int
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that can't be read, and why."""

    number: int
    line: int
    reason: str


class Source:
    """One file. `read(after)` gives the rows behind the first `after` ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        name = path.name.lower()
        self.zipped = name.endswith(".gz")
        kind = name.removesuffix(".gz").rsplit(".", 1)[-1]
        readers = {"csv": self._csv, "jsonl": self._jsonl, "ndjson": self._jsonl, "parquet": self._parquet}
        if kind not in readers or (kind == "parquet" and self.zipped):
            raise ConfigError(
                f"expected a file .csv, .jsonl, .ndjson (or these with .gz) or .parquet, found {path.name}."
            )
        if not path.is_file():
            raise ConfigError(f"expected a file, found none at {path}.")
        self._read = readers[kind]
        self.kind = kind

    @property
    def version(self) -> str:
        """Another one when the file is another: by its size, its time and how it begins."""
        found = self.path.stat()
        with self.path.open("rb") as file:
            head = file.read(64 * 1024)
        return hashlib.sha256(b"%d %d %s" % (found.st_size, found.st_mtime_ns, head)).hexdigest()

    def header(self) -> list[str]:
        """The names of the columns; for JSON lines those of the first row that can be read. Raises ConfigError."""
        if self.kind == "parquet":
            return list(self._parquet_file().schema_arrow.names)
        for row in self._read(0):
            if isinstance(row, Row):
                return list(row.values)
        return []

    def total(self) -> int | None:
        """The size in the unit of `done`: bytes, or rows of Parquet. None when that can't be told beforehand."""
        if self.kind == "parquet":
            return int(self._parquet_file().metadata.num_rows)
        return self.path.stat().st_size

    done: int = 0
    """How much of `total()` was read."""

    def read(self, after: int) -> Iterator[Row | Broken]:
        """The rows behind the first `after`. Raises ConfigError when the file is not of its kind at all."""
        return self._read(after)

    def _open(self) -> "_Text":
        raw = self.path.open("rb")
        return _Text(self, raw, gzip.GzipFile(fileobj=raw) if self.zipped else raw)

    def _csv(self, after: int) -> Iterator[Row | Broken]:
        csv.field_size_limit(MAX_ROW)
        with self._open() as text:
            # Excel writes CSV with semicolons where the comma is the decimal point.
            first = text.first_line()
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            try:
                header = [name.strip() for name in next(reader, [])]
            except (csv.Error, UnicodeDecodeError, ValueError) as error:
                raise ConfigError(
                    f"{self.path.name}: expected a first line with the columns' names: {error}."
                ) from None
            number = 0
            while True:
                broken: str | None = None
                cells: list[str] = []
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except (csv.Error, UnicodeDecodeError, ValueError) as error:
                    broken = f"expected a row of CSV, found that it is none: {error}"
                if broken is None and not cells:
                    continue
                number += 1
                if number <= after:
                    continue
                line = reader.line_num
                if broken is not None:
                    yield Broken(number, line, broken)
                elif len(cells) != len(header):
                    yield Broken(number, line, f"expected {len(header)} columns, found {len(cells)}")
                else:
                    yield Row(number, line, dict(zip(header, cells, strict=True)))

    def _jsonl(self, after: int) -> Iterator[Row | Broken]:
        with self._open() as text:
            number = line = 0
            while raw := text.line():
                line += 1
                if len(raw) <= MAX_ROW and not raw.strip():
                    continue
                number += 1
                if number <= after:
                    continue
                if len(raw) > MAX_ROW:
                    yield Broken(number, line, f"expected a line of at most {MAX_ROW} bytes, found a longer one")
                    continue
                try:
                    found = json.loads(raw, parse_float=Decimal, parse_constant=lambda _: None)
                except (ValueError, RecursionError) as error:
                    yield Broken(number, line, f"expected a JSON object, found that it is none: {error}")
                    continue
                if isinstance(found, dict):
                    yield Row(number, line, found)
                else:
                    yield Broken(number, line, f"expected a JSON object, found a {type(found).__name__}")

    def _parquet_file(self) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self.path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path.name}: expected a Parquet file: {error}.") from None

    def _parquet(self, after: int) -> Iterator[Row | Broken]:
        file = self._parquet_file()
        number = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number + rows <= after:
                number += rows
                continue
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                for values in batch.to_pylist():
                    number += 1
                    self.done = number
                    if number > after:
                        yield Row(number, number, values)


class _Text:
    """Lines of a file in UTF-8 (with or without a mark at its beginning), none of them longer than it may be."""

    def __init__(self, source: Source, raw: BufferedReader, file: "BufferedReader | gzip.GzipFile") -> None:
        self._source = source
        self._raw = raw
        self._file = file
        self._begun: list[bytes] = []

    def __enter__(self) -> "_Text":
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def line(self) -> bytes:
        """The next line; b"" at the end. Of one that is too long only its beginning, longer than MAX_ROW."""
        if self._begun:
            return self._begun.pop()
        found = self._file.readline(MAX_ROW + 1)
        if len(found) > MAX_ROW and not found.endswith(b"\n"):
            while (rest := self._file.readline(MAX_ROW)) and not rest.endswith(b"\n"):
                pass
        self._source.done = self._raw.tell()
        return found

    def first_line(self) -> str:
        """The first line, which stays to be read."""
        found = self.line().removeprefix(b"\xef\xbb\xbf")
        if found:
            self._begun.append(found)
        return found.decode("utf-8", "replace")

    def __iter__(self) -> "_Text":
        return self

    def __next__(self) -> str:
        found = self.line()
        if not found:
            raise StopIteration
        if len(found) > MAX_ROW:
            raise ValueError(f"a line of more than {MAX_ROW} bytes")
        return found.decode("utf-8")
