"""`manage.py prepare`: brings both databases to this version and makes what a first start needs.

Safe to run again and at the same time from several machines: a second run finds everything there. It is also the
migration step of a deployment.
"""

import json
import secrets
import time
from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError, transaction

from spendwatch.clickhouse import retention
from spendwatch.clickhouse.client import connect
from spendwatch.clickhouse.migrate import Layout, create_database, migrate
from spendwatch.errors import ConfigError, StoreError


class Command(BaseCommand):
    """Migrates; makes the administrator, a first project and its token where there are none."""

    help = "Migrate both databases; at the first start make an administrator, a project and its token."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer as one JSON object")
        parser.add_argument(
            "--wait", type=float, default=30, metavar="SECONDS", help="how long to wait for ClickHouse (default 30)"
        )

        parser.add_argument(
            "--layout", choices=["single", "cluster"], default="single", help="of the tables in ClickHouse"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            call_command("migrate", verbosity=0, interactive=False)
            _migrate_clickhouse(options["wait"], options["layout"])
            made = {"admin_password": _first_admin(), "ingest_token": _first_token()}
        except DatabaseError as error:
            raise ConfigError(
                f"expected to migrate the database, found: {' '.join(str(error).split())}. "
                "Check SPENDWATCH_DATABASE_URL, and that its user may create tables."
            ) from None
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        self.stdout.write("Both databases are up to date.")
        if made["admin_password"]:
            self.stdout.write(f"Made the administrator: admin, password {made['admin_password']} (shown only now).")
        if made["ingest_token"]:
            self.stdout.write(f"Made the project “default”, token {made['ingest_token']} (shown only now).")


def _migrate_clickhouse(wait_s: float, layout: Layout) -> None:
    """Migrate ClickHouse, waiting for one that is still starting; not for one that refuses."""
    dsn: str = settings.SPENDWATCH_CLICKHOUSE_DSN
    deadline = time.monotonic() + wait_s
    while True:
        try:
            create_database(dsn, caller="server.prepare", layout=layout)
            with connect(dsn, caller="server.prepare") as ch:
                migrate(ch, layout=layout)
                retention.keep(ch, settings.SPENDWATCH_RETENTION_DAYS, layout=layout)
        except StoreError as error:
            if error.permanent or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.2)


def _first_admin() -> str | None:
    """The password of an administrator made because there was no user at all; None when there was one."""
    users = get_user_model()
    with transaction.atomic():
        if users._default_manager.exists():
            return None
        password = secrets.token_urlsafe(15)
        admin = users._default_manager.create_superuser(username="admin", email=None, password=password)
        admin.groups.add(Group.objects.get(name="owner"))
    return password


def _first_token() -> str | None:
    """The secret of the token of a project made because there was none; None when there was one."""
    projects = apps.get_model("spendwatch_collectors", "Project")
    with transaction.atomic():
        if projects._default_manager.exists():
            return None
        project = projects._default_manager.create(slug="default", name="Default")
        issue = apps.get_model("spendwatch_collectors", "IngestToken").issue
        _token, secret = issue(project, "made at the first start")
    return str(secret)
