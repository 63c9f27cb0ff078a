"""`manage.py migrate_clickhouse`: bring ClickHouse to the newest schema. It may run again, or twice at once."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from spendwatch.clickhouse import retention
from spendwatch.clickhouse.client import connect
from spendwatch.clickhouse.migrate import create_database, migrate
from spendwatch.errors import SpendwatchError


class Command(BaseCommand):
    """Apply the numbered SQL files that the database lacks."""

    help = "Create or upgrade the tables in ClickHouse (SPENDWATCH_CLICKHOUSE)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options of the command."""
        parser.add_argument(
            "--layout",
            choices=["single", "cluster"],
            default="single",
            help="single: one server or the embedded store. cluster: replicated and distributed tables; the server "
            "must define the macros cluster, shard and replica.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it; a fault of the outside becomes one line and exit code 1."""
        dsn, layout = settings.SPENDWATCH_CLICKHOUSE_DSN, options["layout"]
        try:
            create_database(dsn, caller="migrate_clickhouse", layout=layout)
            with connect(dsn, caller="migrate_clickhouse") as ch:
                applied = migrate(ch, layout=layout)
                days = settings.SPENDWATCH_RETENTION_DAYS
                changed = retention.keep(ch, days, layout=layout)
        except SpendwatchError as error:
            raise CommandError(str(error)) from error
        for name in applied:
            self.stdout.write(f"applied {name}")
        if changed:
            self.stdout.write("calls are kept for ever" if days is None else f"calls are kept for {days} days")
        if not applied and not changed:
            self.stdout.write("ClickHouse is up to date.")
