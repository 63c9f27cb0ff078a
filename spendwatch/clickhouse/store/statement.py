"""What the store must know of a statement before the engine sees it: its first words, where the data of an INSERT
begins, which format it asks for.

Only words, quotes, comments and parentheses are read, as ClickHouse's own lexer separates them; meaning is left to the
engine's parser. Nothing here decides what is allowed.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""(?P<space>[\s\x00]+|--[^\n]*(?:\n|\Z)|\#[ !][^\n]*(?:\n|\Z)|/\*.*?\*/)
      |(?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
      |(?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      |(?P<word>[A-Za-z_\x80-\xff][\w\x80-\xff]*)
      |(?P<number>[0-9][\w.]*)
      |(?P<open>[(\[{])|(?P<close>[)\]}])
      |(?P<other>[^'"`])""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class InsertHead:
    """The part of an INSERT before its data.

    statement: what the engine takes, without FORMAT or VALUES. format: of the data. data_at: where the data begins in
    the bytes read; infile: the data would come from a file of this machine.
    """

    statement: str
    format: str
    data_at: int
    infile: bool


class Incomplete(Exception):  # noqa: N818  # not a failure: it says that more bytes are needed
    """The bytes end before it is known where the data of the INSERT begins."""


def first_words(sql: bytes, count: int = 2) -> tuple[str, ...]:
    """The first words in upper case, past comments and opening parentheses; fewer when there are fewer."""
    words: list[str] = []
    for found in _TOKEN.finditer(sql[:4096]):
        if found.lastgroup == "word":
            words.append(found[0].decode(errors="replace").upper())
            if len(words) == count:
                break
        elif found.lastgroup not in ("space", "open"):
            break
    return tuple(words)


def output_format(sql: str) -> str | None:
    """The format a statement names for its result in a FORMAT clause; None when it names none."""
    if "format" not in sql.lower():
        return None
    named: str | None = None
    depth = 0
    after_format = False
    for found in _TOKEN.finditer(sql.encode()):
        kind = found.lastgroup
        if kind == "space":
            continue
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "word" and depth == 0:
            word = found[0].decode(errors="replace")
            if after_format:
                named = word
            after_format = word.upper() == "FORMAT" and not after_format
            continue
        after_format = False
    return named


def insert_head(sql: bytes, *, complete: bool) -> InsertHead | None:
    """Split `INSERT … FORMAT X <data>` or `INSERT … VALUES <data>`.

    None: an INSERT … SELECT, which carries no data. complete: no more bytes follow. Raises Incomplete when more bytes
    are needed to tell.
    """
    depth = 0
    infile = False
    format_at: int | None = None
    position = 0
    for found in _TOKEN.finditer(sql):
        if found.start() != position:
            break  # a quote that has not been closed
        if found.end() == len(sql) and not complete:
            raise Incomplete
        position = found.end()
        kind = found.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "word" and depth == 0:
            word = found[0].upper()
            if format_at is not None:
                return InsertHead(
                    sql[:format_at].decode(), found[0].decode(), _data_begins(sql, position, complete), infile
                )
            if word == b"FORMAT":
                format_at = found.start()
            elif word == b"VALUES":
                return InsertHead(sql[: found.start()].decode(), "Values", position, infile)
            elif word == b"INFILE":
                infile = True
            elif word in (b"SELECT", b"WITH"):
                return None
    if not complete:
        raise Incomplete
    return None


def _data_begins(sql: bytes, position: int, complete: bool) -> int:
    """Data begins after the format's name: past spaces and one line end, or past a semicolon on the same line."""
    while position < len(sql) and sql[position : position + 1] in (b" ", b"\t", b"\r"):
        position += 1
    if position == len(sql) and not complete:
        raise Incomplete
    if sql[position : position + 1] == b";":
        position += 1
    if sql[position : position + 1] == b"\r":
        position += 1
    if position == len(sql) and not complete:
        raise Incomplete
    if sql[position : position + 1] == b"\n":
        position += 1
    return position


_OUTSIDE = (b"file", b"eval")


def outside_name(sql: bytes) -> str | None:
    """A name in a statement that reaches out of the database and that no grant covers; None when there is none.

    `file` reads any file as a function, also where a function's name is an argument; `eval` runs text as SQL; `disk(…)`
    puts a table on a disk of its own. Names are case-sensitive in the engine for the first two.
    """
    if not any(name in sql for name in _OUTSIDE) and b"disk" not in sql.lower():
        return None
    disk = False
    for found in _TOKEN.finditer(sql):
        kind = found.lastgroup
        if kind == "space":
            continue
        if disk and found[0] == b"(":
            return "disk"
        disk = False
        if kind == "word" or (kind == "quoted" and found[0][:1] in (b"`", b'"')):
            name = found[0].strip(b'`"') if kind == "quoted" else found[0]
            if name in _OUTSIDE:
                return name.decode()
            disk = kind == "word" and name.lower() == b"disk"
    return None


_BACKUP = re.compile(
    r"(?:BACKUP DATABASE `(?P<saved>\w+)` TO|RESTORE DATABASE `(?P<restored>\w+)` FROM)"
    r" Disk\('backups', '[\w-]+\.tar'\)"
    r"(?: SETTINGS base_backup = Disk\('backups', '[\w-]+\.tar'\))?(?: ASYNC)?"
)


def is_own_backup(sql: str, database: str) -> bool:
    """Whether a statement is a BACKUP or RESTORE of the whole database in the one form the store lets in."""
    found = _BACKUP.fullmatch(sql.strip())
    return found is not None and (found["saved"] or found["restored"]) == database


_KILL_ID = re.compile(r"\bquery_id\s*=\s*'((?:[^'\\]|\\.|'')*)'", re.IGNORECASE)


def killed_query_ids(sql: str) -> list[str]:
    """The query ids a KILL QUERY names as `query_id = '…'`."""
    return [found.replace("''", "'").replace("\\'", "'").replace("\\\\", "\\") for found in _KILL_ID.findall(sql)]


def replace_query_id(sql: str, query_id: str, condition: str) -> str:
    """The same KILL QUERY with `query_id = '<query_id>'` exchanged for another condition."""
    return _KILL_ID.sub(lambda found: condition if killed_query_ids(found[0]) == [query_id] else found[0], sql)


def quote(value: str) -> str:
    """A ClickHouse string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
