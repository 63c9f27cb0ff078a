"""Django on PostgreSQL: every migration, and the tests that use the database, in a database of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests.fixtures.services import POSTGRESQL_URL
from tests.server.processes import ROOT

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.slow]


@pytest.fixture
def database_url() -> Iterator[str]:
    """A PostgreSQL database that is dropped afterwards, with the one Django's tests make beside it."""
    name = f"spendwatch_{os.getpid()}_{os.urandom(4).hex()}"
    with psycopg.connect(POSTGRESQL_URL, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(POSTGRESQL_URL)._replace(path=f"/{name}"))
        finally:
            for one in (name, f"test_{name}"):
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(one)))


def run(url: str, folder: Path, *arguments: str) -> str:
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "SPENDWATCH_DATABASE_URL": url, "SPENDWATCH_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_every_migration_runs_and_none_is_missing(database_url: str, tmp_path: Path) -> None:
    run(database_url, tmp_path, "manage.py", "migrate", "--verbosity", "0")
    assert "[ ]" not in run(database_url, tmp_path, "manage.py", "showmigrations")
    with psycopg.connect(database_url) as link:
        groups = link.execute("SELECT name FROM auth_group ORDER BY name").fetchall()
    assert [name for (name,) in groups] == ["finance", "owner", "platform", "viewer"]


def test_the_tests_of_the_database_pass(database_url: str, tmp_path: Path) -> None:
    """A run within the run: the same tests that pass on SQLite."""
    out = run(
        database_url,
        tmp_path,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "tests/ledger",
        "tests/alerts",
        # It runs workers of its own, on a database of its own.
        "--ignore=tests/alerts/test_workers.py",
        "tests/server/test_settings.py",
    )
    assert " passed" in out
