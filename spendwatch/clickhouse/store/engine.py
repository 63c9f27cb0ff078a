"""The engine: the one chDB directory of this process, and the connections into it.

A connection runs one statement at a time and keeps its own settings, database and temporary tables. Connections are
handed out one per statement, brought to the state that the statement asks for (database, settings), and taken back;
one whose state can't be told any more is closed. Nothing here knows of HTTP.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from chdb.state.sqlitelike import Connection

from spendwatch.clickhouse.store.errors import (
    ACCESS_DENIED,
    READONLY,
    SYNTAX_ERROR,
    Refusal,
    from_engine,
    refusal,
)
from spendwatch.clickhouse.store.statement import first_words, is_own_backup, outside_name, quote

IDLE_CONNECTIONS = 64

# A string setting that means nothing to a single machine. It carries the connection's name into system.processes, which
# is the only way to tell there which statement is which: chDB gives every statement a query id of its own.
_MARK = "cluster_for_parallel_replicas"

# Statements that change the connection or the server rather than data, and that clients need. Everything else the
# engine's parser calls CONTROL is refused, first of all SELECT … INTO OUTFILE, which writes a file of this machine.
_CONTROL = frozenset({"SET", "USE", "KILL", "SYSTEM", "ATTACH", "DETACH", "CREATE", "DROP"})


# What can keep a part from being stored: no file or no descriptor of one, no memory, no space, too many parts, a broken
# part, the file system's own errors.
_WRITE_FAULTS = (40, 49, 74, 75, 76, 173, 228, 241, 243, 246, 252, 425, 481, 1001)


class Link:
    """One connection: its name in system.processes, and the database and settings it stands at."""

    def __init__(self, connection: Connection, name: str, database: str, *, readonly: bool) -> None:
        self._connection = connection  # closing happens when this object goes away, so it is kept
        self.raw: Any = connection._conn
        self.name = name
        self.readonly = readonly
        self.database = database
        self.settings: dict[str, str] = {}
        self.spoiled = False  # its state is unknown: never to be handed out again

    def run(self, sql: str, format: str = "TSV", params: Mapping[str, str] | None = None) -> Any:
        """Run one statement to its end; the whole result at once. Raises Refusal."""
        try:
            return self.raw.query(sql, format, params=dict(params or {}))
        except RuntimeError as error:
            raise from_engine(error) from None

    def stand_at(self, database: str, settings: Mapping[str, str]) -> None:
        """Bring the connection to this database and exactly these settings. Raises Refusal."""
        changed = [f"{name}={quote(value)}" for name, value in settings.items() if self.settings.get(name) != value]
        changed += [f"{name}=DEFAULT" for name in self.settings if name not in settings]
        try:
            if changed:
                self.run("SET " + ", ".join(changed))
                self.settings = dict(settings)
            if database != self.database:
                self.run(f"USE {identifier(database)}")
                self.database = database
        except Refusal:
            self.spoiled = True
            raise
        if "readonly" in settings:
            self.spoiled = True  # what is made read-only can't be made writable again

    def close(self) -> None:
        """End the connection and what hangs on it."""
        self.spoiled = True
        self._connection.close()


class Engine:
    """An open chDB directory. Use as a context manager; one per process, one process per directory."""

    def __init__(self, directory: Path, config: Path, database: str) -> None:
        self._string = f"{directory}?config-file={config}"
        self.database = database
        self._names = itertools.count(1)
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._kill = threading.Lock()
        self._control = self.connect()
        self._control.run(f"CREATE DATABASE IF NOT EXISTS {identifier(database)}")
        self.version = self._control.run("SELECT version()").bytes().decode().strip()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def connect(self, *, readonly: bool = False) -> Link:
        """A new connection, outside the pool. Raises Refusal when the engine can't open the directory."""
        name = f"link-{next(self._names)}"
        try:
            link = Link(Connection(self._string), name, "default", readonly=readonly)
        except RuntimeError as error:
            raise from_engine(error) from None
        link.run(f"SET {_MARK}={quote(name)}" + (", readonly=2" if readonly else ""))
        return link

    @contextmanager
    def lease(self, database: str, settings: Mapping[str, str], *, readonly: bool) -> Iterator[Link]:
        """A connection that stands at this database and these settings, for one statement."""
        link = self.take(database, settings, readonly=readonly)
        try:
            yield link
        finally:
            self.give_back(link)

    def take(self, database: str, settings: Mapping[str, str], *, readonly: bool) -> Link:
        """As lease, to be given back by give_back()."""
        with self._lock:
            link = self._fitting(database, settings, readonly=readonly)
        if link is None:
            link = self.connect(readonly=readonly)
        try:
            link.stand_at(database, settings)
        except Refusal:
            link.close()
            raise
        return link

    def _fitting(self, database: str, settings: Mapping[str, str], *, readonly: bool) -> Link | None:
        """An idle connection to use. Clients repeat themselves, so one that already stands at the right place is mostly
        there; else a new one while there are few, so that they come to stand at different places; else the one unused
        for longest has to move."""
        fitting = [link for link in self._idle if link.readonly == readonly]
        exact = [link for link in fitting if link.database == database and link.settings == settings]
        if not exact and len(self._idle) < IDLE_CONNECTIONS // 2:
            return None
        link = exact[-1] if exact else fitting[0] if fitting else None
        if link is not None:
            self._idle.remove(link)
        return link

    def give_back(self, link: Link) -> None:
        """Take a connection back. Waits for a kill of it that is under way, so that none hits the next statement."""
        with self._kill:
            pass
        if not link.spoiled:
            with self._lock:
                if len(self._idle) < IDLE_CONNECTIONS:
                    self._idle.append(link)
                    return
        link.close()

    def write_faults(self) -> int:
        """How many times anything failed to be written since the start; to be compared around an insert."""
        with self.lease(self.database, {}, readonly=True) as link:
            return int(link.run(f"SELECT sum(value) FROM system.errors WHERE code IN {_WRITE_FAULTS}").bytes())  # noqa: S608

    def check_written(self, faults_before: int) -> None:
        """After an insert: raise a Refusal when something failed to be written meanwhile.

        chDB reports an insert as done even when its last step, storing the part, failed (a full disk, memory). So what
        failed meanwhile is taken to be this insert, even if it was another statement: the sender sends it again.
        """
        if self.write_faults() == faults_before:
            return
        with self.lease(self.database, {}, readonly=True) as link:
            found = link.run(
                "SELECT code, name, last_error_message FROM system.errors "  # noqa: S608  # a fixed list
                f"WHERE code IN {_WRITE_FAULTS} ORDER BY last_error_time DESC LIMIT 1",
                "JSONCompactEachRow",
            )
        code, name, message = json.loads(found.bytes())
        raise Refusal(
            code,
            f"Code: {code}. DB::Exception: {message}: the rows of this INSERT may not be stored, send them again. "
            f"({name})",
        )

    def kill(self, link_name: Callable[[], str]) -> None:
        """Ask the engine to stop what a connection runs; does not wait for it.

        link_name is asked while no connection can be given back: "" when the statement is over.
        """
        with self._kill:
            name = link_name()
            if name:
                self._control.run(f"KILL QUERY WHERE {running(name)} ASYNC")

    @contextmanager
    def killing(self) -> Iterator[None]:
        """While this is held, no connection is given back, so a name found now still means the same statement."""
        with self._kill:
            yield

    def close(self) -> None:
        """Close every idle connection, then the last one, which shuts the engine down."""
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()
        self._control.close()

    def admit(self, link: Link, sql: str, *, get: bool) -> str:
        """The class the engine's parser gives a statement, when the store lets it in. Raises Refusal.

        get: the request was a GET, which changes nothing.
        """
        kind, statements = _classified(link.raw, sql, self.database)
        words = first_words(sql.encode(), 3)
        if kind == "UNKNOWN" or statements != 1:
            if statements > 1:
                raise refusal(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed): expected one statement.")
            raise _syntax_error(link, sql)
        if kind == "CONTROL" and is_own_backup(sql, self.database):
            if get or link.readonly:  # the engine itself would let a read-only user write a backup
                raise refusal(READONLY, "Cannot execute query in readonly mode. Use method POST to change something.")
            return kind
        if kind == "MUTATING_GLOBAL" or (kind == "CONTROL" and (not words or words[0] not in _CONTROL)):
            raise refusal(
                ACCESS_DENIED,
                "Not enough privileges. The embedded store runs no statement that reaches beyond its database: "
                "no files, users or functions, and of backups only those of `manage.py store`. Use a ClickHouse server "
                "for it.",
            )
        outside = outside_name(sql.encode())
        if outside is not None:
            raise refusal(
                ACCESS_DENIED,
                f"Not enough privileges. The embedded store takes no statement with the name {outside}, which reaches "
                "out of its database.",
            )
        if get and (kind == "MUTATING" or (kind == "CONTROL" and not _own_affair(words))):
            raise refusal(READONLY, "Cannot execute query in readonly mode. Use method POST to change something.")
        return kind


def _classified(raw: Any, sql: str, database: str) -> tuple[str, int]:
    found = raw.classify_query(sql, database)
    return found["query_class"].name, found["statement_count"]


def _own_affair(words: tuple[str, ...]) -> bool:
    """Whether a control statement changes nothing but its own connection."""
    return words[:1] in (("SET",), ("USE",)) or words[:2] in (("CREATE", "TEMPORARY"), ("DROP", "TEMPORARY"))


def _syntax_error(link: Link, sql: str) -> Refusal:
    """What is wrong with a text that is no statement, in the words of the engine's parser. Nothing runs: formatQuery
    only reads."""
    try:
        link.run("SELECT formatQuery({sql:String})", params={"sql": escaped(sql)})
    except Refusal as error:
        if error.code == SYNTAX_ERROR:
            said = error.text.partition(": In scope SELECT formatQuery(")[0].removesuffix(" (SYNTAX_ERROR)")
            return Refusal(SYNTAX_ERROR, f"{said} (SYNTAX_ERROR)")
    return refusal(SYNTAX_ERROR, "Syntax error: expected one statement of ClickHouse SQL.")


def running(link_name: str) -> str:
    """The condition on system.processes that finds what a connection runs."""
    return f"Settings[{quote(_MARK)}] = {quote(link_name)}"


def identifier(name: str) -> str:
    """A quoted ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def escaped(value: str) -> str:
    """A text as the value of a query parameter, which is read as an Escaped (TSV) field."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
