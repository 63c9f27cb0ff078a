"""The schema of ClickHouse: numbered SQL files, rendered for one node or for a cluster, each applied once.

Every statement is idempotent (IF NOT EXISTS), so two processes may migrate at once and a migration that died half-way
is simply run again. An applied file is never edited: its checksum is kept and compared. Never here: data.
"""

# ruff: noqa: S608  # names in the SQL come from fixed lists, values are parameters

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Literal, get_args

from spendwatch.clickhouse.client import Connection, connect
from spendwatch.errors import ConfigError

Layout = Literal["single", "cluster"]

_WORDS: dict[Layout, dict[str, str]] = {
    "single": {
        "local": "",
        "on_cluster": "",
        "replicated": "",
        "replica": "",
        "replica_only": "",
        "replica_everywhere": "",
    },
    # {cluster}, {shard}, {replica} and {uuid} are the server's own macros.
    "cluster": {
        "local": "_local",
        "on_cluster": "ON CLUSTER '{cluster}'",
        "replicated": "Replicated",
        "replica": "'/clickhouse/tables/{uuid}/{shard}', '{replica}', ",
        "replica_only": "('/clickhouse/tables/{uuid}/{shard}', '{replica}')",
        # One table for the whole cluster: every node of every shard is a replica of it.
        "replica_everywhere": "'/clickhouse/tables/{uuid}/all', '{shard}-{replica}', ",
    },
}

_TABLE = """CREATE TABLE IF NOT EXISTS $database.spendwatch_migrations $on_cluster
(name String, layout String, sha256 String, applied_at DateTime('UTC') DEFAULT now())
ENGINE = ${replicated}ReplacingMergeTree(${replica_everywhere}applied_at)
ORDER BY name"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The checksum by which an applied file is recognised."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, layout: Layout, database: str) -> list[str]:
        """The SQL of the file for a layout, one statement each, without comments."""
        out = []
        for part in re.split(r";[ \t]*(?:\n|$)", self.text):
            only = re.search(r"^-- layout: (\w+)$", part, re.MULTILINE)
            bare = "\n".join(line for line in part.splitlines() if line.strip() and not line.startswith("--"))
            if bare and (only is None or only[1] == layout):
                out.append(render(bare, layout, database))
        return out


def render(text: str, layout: Layout, database: str) -> str:
    """Fill in the words of a layout. Raises KeyError for an unknown word."""
    filled = Template(text).substitute(_WORDS[layout], database=quoted(database))
    return "\n".join(line.rstrip() for line in filled.splitlines())


def quoted(name: str) -> str:
    """A database name as SQL takes it. Raises ConfigError for a name that would need escaping."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(f"the ClickHouse database {name!r} can't be used. Name it with letters, digits and _ only.")
    return name


def migrations() -> list[Migration]:
    """The numbered files, in order."""
    folder = files("spendwatch.clickhouse") / "migrations"
    found = [Migration(entry.name, entry.read_text()) for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(found, key=lambda migration: migration.name)


def migrate(ch: Connection, *, layout: Layout = "single") -> list[str]:
    """Bring the database to the newest schema; returns the names of what was applied now.

    Raises StoreError; ConfigError when the database was made with another layout or a file was edited afterwards.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"expected layout single or cluster, found {layout!r}.")
    ch.command("migrate", render(_TABLE, layout, ch.database))
    applied = {name: (made_for, sha256) for name, made_for, sha256 in _applied(ch)}
    new = []
    for migration in migrations():
        if migration.name in applied:
            _check(migration, layout, *applied[migration.name])
            continue
        for statement in migration.statements(layout, ch.database):
            ch.command("migrate", statement)
        ch.command(
            "migrate",
            f"INSERT INTO {quoted(ch.database)}.spendwatch_migrations (name, layout, sha256) "
            "SELECT {name:String}, {layout:String}, {sha256:String}",
            {"name": migration.name, "layout": layout, "sha256": migration.sha256},
        )
        new.append(migration.name)
    return new


def pending(ch: Connection) -> list[str]:
    """The names of migrations that this database still lacks. Raises StoreError."""
    known = ch.query(
        "pending_migrations",
        "SELECT name FROM system.tables WHERE database = {database:String} AND name = 'spendwatch_migrations'",
        {"database": ch.database},
    )
    applied = {name for name, _, _ in _applied(ch)} if known else set()
    return [migration.name for migration in migrations() if migration.name not in applied]


def create_database(dsn: str, *, caller: str, layout: Layout = "single") -> None:
    """Make the DSN's database if it is missing. Raises StoreError, ConfigError."""
    with connect(dsn, caller=caller, any_database=True) as ch:
        known = ch.query(
            "databases", "SELECT 1 FROM system.databases WHERE name = {name:String}", {"name": ch.database}
        )
        if not known:
            ch.command("migrate", render("CREATE DATABASE IF NOT EXISTS $database $on_cluster", layout, ch.database))


def _applied(ch: Connection) -> list[tuple[str, str, str]]:
    rows = ch.query(
        "applied_migrations",
        f"SELECT name, argMax(layout, applied_at), argMax(sha256, applied_at) "
        f"FROM {quoted(ch.database)}.spendwatch_migrations GROUP BY name ORDER BY name",
    )
    return [(str(name), str(layout), str(sha256)) for name, layout, sha256 in rows]


def _check(migration: Migration, layout: Layout, made_for: str, sha256: str) -> None:
    if made_for != layout:
        raise ConfigError(
            f"the ClickHouse tables were made for layout {made_for}, found layout {layout}. "
            f"Run `migrate_clickhouse --layout {made_for}`, or use an empty database."
        )
    if sha256 != migration.sha256:
        raise ConfigError(
            f"{migration.name} was edited after this database had applied it (expected {sha256[:12]}, found "
            f"{migration.sha256[:12]}). Put the file back and write the change as a new numbered file."
        )
