"""Running one statement: the blocking half, called from a thread.

A result comes as pieces, the first of them already fetched, so that a statement that fails at once is refused with its
status instead of breaking an answer that has begun. An insert is committed by finish() and by nothing else.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spendwatch.clickhouse.store.compression import PIECE
from spendwatch.clickhouse.store.engine import Engine, Link, identifier
from spendwatch.clickhouse.store.errors import ACCESS_DENIED, BAD_ARGUMENTS, from_engine, refusal
from spendwatch.clickhouse.store.statement import InsertHead, first_words, output_format, quote

# Formats whose blocks may be written one after another. The engine ends every block of any other format as if it were
# the whole (Arrow, JSON, Parquet, and each …WithNames would repeat its header), so those are taken as one piece.
_ROW_FORMATS = frozenset(
    {
        "csv",
        "customseparated",
        "jsoneachrow",
        "jsonlines",
        "jsonstringseachrow",
        "lineasstring",
        "msgpack",
        "native",
        "ndjson",
        "null",
        "rawblob",
        "rowbinary",
        "tabseparated",
        "tabseparatedraw",
        "tsv",
        "tsvraw",
    }
)

_ENOUGH = 256 * 1024
_SPOOL = 32 << 20


@dataclass(slots=True)
class Progress:
    """What a statement has read and written so far, for X-ClickHouse-Summary."""

    started: float
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0

    def summary(self) -> dict[str, str]:
        """As ClickHouse writes it: every number as text."""
        return {
            "read_rows": str(self.read_rows),
            "read_bytes": str(self.read_bytes),
            "written_rows": str(self.written_rows),
            "written_bytes": str(self.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": str(self.result_rows),
            "result_bytes": str(self.result_bytes),
            "elapsed_ns": str(int((time.monotonic() - self.started) * 1e9)),
        }


class Result:
    """The result of a statement: pieces of bytes in its format.

    first holds the pieces fetched so far, complete is True when they are all. The rest comes from next_piece().
    """

    def __init__(self, link: Link, sql: str, kind: str, default_format: str, params: Mapping[str, str]) -> None:
        self.format = output_format(sql) or default_format
        self.progress = Progress(time.monotonic())
        self.complete = False
        self.first = b""
        self._link = link
        self._stream: Any = None
        # The engine streams queries only; SHOW, DESCRIBE, EXPLAIN and the like have short results anyway.
        query = first_words(sql.encode(), 1) in (("SELECT",), ("WITH",), ("FROM",))
        if kind == "READ_ONLY" and query and self.format.lower() in _ROW_FORMATS:
            try:
                self._stream = link.raw.send_query(sql, self.format, params=dict(params))
            except RuntimeError as error:
                raise from_engine(error) from None
            self.first = self.next_piece()
        else:
            found = link.run(sql, self.format, params)
            self.first = found.bytes()
            self.progress.read_rows = found.storage_rows_read()
            self.progress.read_bytes = found.storage_bytes_read()
            self.progress.written_rows = found.rows_written()
            self.progress.written_bytes = found.bytes_written()
            self.progress.result_rows = found.rows_read()
            self.progress.result_bytes = len(self.first)
            self.complete = True

    def next_piece(self) -> bytes:
        """The next bytes, several blocks of them when they are small. complete is True when they are the last.

        Raises Refusal when the statement fails in the middle.
        """
        parts: list[bytes] = []
        size = 0
        until = time.monotonic() + 0.05
        while not self.complete and size < _ENOUGH:
            try:
                block = self._link.raw.streaming_fetch_result(self._stream)
            except RuntimeError as error:
                self.complete = True
                raise from_engine(error) from None
            if block is None:
                self.complete = True
                break
            data: bytes = block.bytes()
            rows = block.rows_read()
            self.progress.read_rows = max(self.progress.read_rows, block.storage_rows_read())
            self.progress.read_bytes = max(self.progress.read_bytes, block.storage_bytes_read())
            self.progress.result_rows += rows
            self.progress.result_bytes += len(data)
            parts.append(data)
            size += len(data)
            if rows == 0:  # the engine's end mark; what bytes it has are a header without rows
                self.complete = True
            elif time.monotonic() > until and size:
                break
        return b"".join(parts)

    def spool(self) -> Iterator[bytes]:
        """Run the statement to its end, then hand its pieces out, large ones from a temporary file. Raises Refusal."""
        if self.complete:
            return _slices(self.first)
        with contextlib.ExitStack() as stack:
            spooled = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPOOL))
            spooled.write(self.first)
            for piece in iter(self._rest, None):
                spooled.write(piece)
            spooled.seek(0)
            stack.pop_all()
        return _read_pieces(spooled)

    def _rest(self) -> bytes | None:
        return None if self.complete else self.next_piece()

    def cancel(self) -> None:
        """Stop a statement whose rest nobody wants."""
        if self._stream is not None and not self.complete:
            self.complete = True
            try:
                self._link.raw.streaming_cancel_query(self._stream)
            except RuntimeError:
                self._link.spoiled = True  # it may still be busy with it


def _slices(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


def _read_pieces(file: "tempfile.SpooledTemporaryFile[bytes]") -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece


class Insert:
    """One INSERT whose data is streamed in. Nothing is acknowledged before finish() has returned."""

    def __init__(self, engine: Engine, link: Link, head: InsertHead, params: Mapping[str, str]) -> None:
        if head.infile:
            raise refusal(ACCESS_DENIED, "Not enough privileges. INSERT … FROM INFILE reads files of this machine.")
        engine.admit(link, f"{head.statement} FORMAT {head.format}", get=False)
        if params:
            # A streamed insert takes no parameters with it: they go into the connection, which is not used again.
            link.spoiled = True
            link.run("SET " + ", ".join(f"param_{name}={quote(value)}" for name, value in params.items()))
        self.progress = Progress(time.monotonic())
        self._raw = link.raw
        self._link = link
        self._over = False
        self._engine = engine
        self._faults_before = engine.write_faults()
        try:
            self._inserter = self._raw.send_insert(head.statement, head.format)
        except RuntimeError as error:
            raise from_engine(error) from None

    def append(self, data: bytes) -> None:
        """Hand on the next bytes of the data. Raises Refusal."""
        try:
            self._raw.insert_append(self._inserter, data)
        except RuntimeError as error:
            raise from_engine(error) from None

    def finish(self) -> None:
        """Commit. When this returns, the rows are stored. Raises Refusal."""
        self._over = True
        try:
            done = self._raw.insert_done(self._inserter)
        except RuntimeError as error:
            raise from_engine(error) from None
        self._engine.check_written(self._faults_before)
        self.progress.written_rows = done.rows_written()
        self.progress.written_bytes = done.bytes_written()

    def cancel(self) -> None:
        """Give an insert up that was not finished."""
        if self._over:
            return
        self._over = True
        try:
            self._raw.insert_cancel(self._inserter)
        except RuntimeError:
            self._link.spoiled = True


def load_table(link: Link, name: str, described: Mapping[str, str], data: bytes) -> None:
    """Make one external table: a temporary one with the columns of `structure`, or of `types` named _1, _2…

    Raises Refusal.
    """
    if "structure" in described:
        columns = described["structure"]
    elif "types" in described:
        columns = ", ".join(f"_{number} {kind}" for number, kind in enumerate(split_types(described["types"]), 1))
    else:
        raise refusal(BAD_ARGUMENTS, f"External table {name} has no {name}_structure or {name}_types.")
    sql = f"CREATE TEMPORARY TABLE {identifier(name)} ({columns})"
    if first_words(sql.encode(), 3) != ("CREATE", "TEMPORARY", "TABLE"):
        raise refusal(BAD_ARGUMENTS, f"External table {name!r} has no proper name.")
    link.run(sql)
    try:
        inserter = link.raw.send_insert(f"INSERT INTO {identifier(name)}", described.get("format", "TabSeparated"))
        link.raw.insert_append(inserter, data)
        link.raw.insert_done(inserter)
    except RuntimeError as error:
        raise from_engine(error) from None


def split_types(types: str) -> list[str]:
    """Split a list of types at its outer commas."""
    parts, depth = [""], 0
    for character in types:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
