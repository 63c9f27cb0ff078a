"""The connection to ClickHouse: clickhouse-connect's HTTP client behind four typed verbs, the same for the embedded
store, a server and a cluster.

Every statement carries a log_comment "caller/name", so the query log says who asked what. Faults of the other side are
StoreErrors whose text says what to do; a message never holds the password. Never here: SQL text, Django, retries of
an insert (the caller knows whether its batch may be sent again).

One Connection may be used by one thread at a time or by several: it has no session, so statements don't wait for each
other.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.compression import get_compressor
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, DataError, Error, OperationalError

from spendwatch.errors import ConfigError, StoreError

CONNECT_TIMEOUT_S = 5
INSERT_TIMEOUT_S = 30
"""The longest an insert may take; rollup.SETTLING_S must stay above it."""
QUERY_TIMEOUT_S = 60

UNKNOWN_DATABASE = 81
_UNKNOWN_TABLE = 60
_UNKNOWN_COLUMN = frozenset({16, 47})
_WRONG_LOGIN = frozenset({192, 193, 194, 516})
_NO_RIGHTS = frozenset({164, 497})
# What may pass by itself: timeouts, memory, disk, too many parts or queries, a replica or keeper that is away.
_PASSING = frozenset({3, 159, 160, 202, 203, 209, 210, 241, 242, 243, 252, 279, 285, 319, 394, 425, 439, 999, 1000})
_MIGRATE = "Run `python manage.py migrate_clickhouse`."


@dataclass(frozen=True, slots=True)
class Dsn:
    """Where a ClickHouse is: http(s)://user:password@host:port/database.

    clickhouse:// means http, clickhouses:// https; either way it is the port of ClickHouse's HTTP interface.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    secure: bool

    @classmethod
    def parse(cls, text: str) -> "Dsn":
        """Read a DSN. Raises ConfigError, without repeating the password, when it is not one."""
        try:
            parts = urlsplit(text)
            secure = {"http": False, "clickhouse": False, "https": True, "clickhouses": True}[parts.scheme]
            port = parts.port
        except (KeyError, ValueError):
            parts = None
        if parts is None or not parts.hostname:
            raise ConfigError(
                "the ClickHouse DSN can't be read: expected http(s)://user:password@host:port/database, found "
                f"{text.rsplit('@', 1)[-1]!r}. Set SPENDWATCH_CLICKHOUSE to the HTTP port of your server."
            )
        if parse_qs(parts.query).get("secure", ["0"])[-1].lower() in ("1", "true", "yes"):
            secure = True
        return cls(
            host=parts.hostname,
            port=port or (8443 if secure else 8123),
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.strip("/")) or "spendwatch",
            secure=secure,
        )

    @property
    def is_loopback(self) -> bool:
        """Whether the server runs on this machine, where compression costs more than it saves."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def place(self) -> str:
        """The DSN without its password, for messages."""
        return f"{'https' if self.secure else 'http'}://{self.user}@{self.host}:{self.port}/{self.database}"


class Connection:
    """Statements on one ClickHouse database, each named for the query log. Close it, or use it as a context."""

    def __init__(self, client: Client, dsn: Dsn, caller: str) -> None:
        self._client = client
        self._dsn = dsn
        self.caller = caller

    @property
    def database(self) -> str:
        """The name of the database that the DSN points at."""
        return self._dsn.database

    def query(self, name: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a SELECT. Raises StoreError."""
        settings = {
            "log_comment": f"{self.caller}/{name}",
            "max_execution_time": QUERY_TIMEOUT_S,
            # The month is part of the sort key, so no row has its successor in another partition.
            "do_not_merge_across_partitions_select_final": 1,
        }
        try:
            result = self._client.query(sql, parameters=dict(parameters or {}), settings=settings)
        except Error as error:
            raise self._explain(error, name) from error
        return [tuple(row) for row in result.result_rows]

    def command(self, name: str, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement without a result (DDL, INSERT ... SELECT). Raises StoreError."""
        settings: dict[str, Any] = {"log_comment": f"{self.caller}/{name}"}
        if sql.lstrip()[:6].upper() == "INSERT":
            settings |= self._insert_settings()
        try:
            self._client.command(sql, parameters=dict(parameters or {}), settings=settings)
        except Error as error:
            raise self._explain(error, name) from error

    def insert(
        self,
        name: str,
        table: str,
        columns: Sequence[str],
        types: Sequence[ClickHouseType],
        data: Sequence[Sequence[Any]],
    ) -> None:
        """Insert whole columns; returns after the commit. Raises StoreError: then the rows may be stored or not."""
        settings = {"log_comment": f"{self.caller}/{name}", **self._insert_settings()}
        try:
            self._client.insert(
                table, data, column_names=columns, column_types=types, column_oriented=True, settings=settings
            )
        except Error as error:
            raise self._explain(error, name) from error

    def insert_block(self, name: str, table: str, columns: Sequence[str], block: bytes) -> None:
        """Insert a block in the Native format; returns after the commit. Raises StoreError, as insert() does."""
        settings = {"log_comment": f"{self.caller}/{name}", **self._insert_settings()}
        compression = self._client.write_compression
        if compression:
            compressor: Any = get_compressor(compression)
            block = bytes(compressor.compress_block(block)) + bytes(compressor.flush() or b"")
        try:
            self._client.raw_insert(table, columns, block, settings, "Native", compression)
        except Error as error:
            raise self._explain(error, name) from error

    def block(self, name: str, sql: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        """The result of a SELECT in the Native format, for insert_block. Raises StoreError."""
        settings = {"log_comment": f"{self.caller}/{name}", "max_execution_time": QUERY_TIMEOUT_S}
        try:
            return self._client.raw_query(sql, parameters=dict(parameters or {}), settings=settings, fmt="Native")
        except Error as error:
            raise self._explain(error, name) from error

    def close(self) -> None:
        """Give back the sockets."""
        self._client.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _insert_settings(self) -> dict[str, Any]:
        known = self._client.server_settings
        wanted: dict[str, Any] = {
            # Servers batch inserts by default and answer up to 200 ms later; ours are batches already.
            "async_insert": 0,
            # Rows are made unique by their content. The server's own block memory can drop a block it never stored.
            "insert_deduplicate": 0,
            "deduplicate_insert": "disable",
            # A Distributed table answers after the shards have the rows, not after it has queued them.
            "distributed_foreground_insert": 1,
            "insert_distributed_sync": 1,
            "max_execution_time": INSERT_TIMEOUT_S,
        }
        if "distributed_foreground_insert" in known:
            del wanted["insert_distributed_sync"]
        return {setting: value for setting, value in wanted.items() if setting in known}

    def _explain(self, error: Error, name: str) -> StoreError:
        return explain(error, self._dsn, f"{self.caller}/{name}")


def connect(dsn: str, *, caller: str, any_database: bool = False) -> Connection:
    """Open a connection and check that it works.

    caller: who asks, for the query log. any_database: don't require the DSN's database to exist (migrate makes it).
    Raises ConfigError when the DSN can't be read, StoreError when the server can't be used.
    """
    where = Dsn.parse(dsn)
    try:
        client = clickhouse_connect.get_client(
            host=where.host,
            port=where.port,
            username=where.user,
            password=where.password,
            database="" if any_database else where.database,
            secure=where.secure,
            compress=not where.is_loopback,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=QUERY_TIMEOUT_S + 5,
            autogenerate_session_id=False,
            client_name="spendwatch",
            tz_mode="aware",
        )
    except ClickHouseError as error:
        raise explain(error, where, f"{caller}/connect") from error
    return Connection(client, where, caller)


def explain(error: ClickHouseError, dsn: Dsn, statement: str) -> StoreError:
    """The StoreError for what clickhouse-connect raised. `permanent` means that a person has to do something."""
    code = error.code if isinstance(error, Error) else None
    if code in _WRONG_LOGIN:
        return StoreError(
            f"ClickHouse at {dsn.place} refused the user or password. "
            "Correct them in SPENDWATCH_CLICKHOUSE (or remove it to use the embedded store).",
            permanent=True,
        )
    if code in _NO_RIGHTS:
        return StoreError(
            f"ClickHouse at {dsn.place} does not let user {dsn.user!r} do {statement} (code {code}). "
            f"Grant it SELECT, INSERT, ALTER, CREATE and DROP on {dsn.database}.*",
            permanent=True,
        )
    if code == UNKNOWN_DATABASE:
        return StoreError(f"ClickHouse at {dsn.place} has no database {dsn.database!r}. {_MIGRATE}", permanent=True)
    if code == _UNKNOWN_TABLE or code in _UNKNOWN_COLUMN:
        return StoreError(
            f"the tables at {dsn.place} are not those that {statement} expects (code {code}: {_short(error)}). "
            f"{_MIGRATE}",
            permanent=True,
        )
    if code is None and isinstance(error, OperationalError | DatabaseError) and not isinstance(error, DataError):
        return StoreError(
            f"ClickHouse at {dsn.place} can't be reached for {statement} ({_short(error)}). Start it "
            "(`python manage.py up` runs the embedded one), or correct SPENDWATCH_CLICKHOUSE.",
            retry_after_s=1,
        )
    return StoreError(
        f"ClickHouse at {dsn.place} failed at {statement} (code {code}: {_short(error)}).",
        permanent=code not in _PASSING,
    )


def _short(error: ClickHouseError) -> str:
    """The first words of what the server said, on one line."""
    return " ".join(str(error).split())[:300]
