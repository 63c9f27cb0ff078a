"""`manage.py store backup TARGET [--base PREVIOUS]` and `manage.py store restore SOURCE [--replace]`: the embedded
ClickHouse into a file and back, while it runs. `manage.py store copy`: into another ClickHouse."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from spendwatch.clickhouse import moving
from spendwatch.clickhouse.client import Connection, Dsn, connect
from spendwatch.clickhouse.migrate import Layout, create_database
from spendwatch.clickhouse.store.backup import backup, restore
from spendwatch.errors import ConfigError, SpendwatchError


class Command(BaseCommand):
    """Saves, restores or copies; exits with 1 and one line when it can't."""

    help = (
        "Back up or restore the embedded ClickHouse (a ClickHouse server makes its own backups), or copy everything "
        "into another ClickHouse."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The two actions and their options."""
        actions = parser.add_subparsers(dest="action", required=True)
        saving = actions.add_parser("backup", help="save everything into a .tar file, and prove it by restoring it")
        saving.add_argument("target", type=Path, help="a new file that ends in .tar, or a folder")
        saving.add_argument(
            "--base", type=Path, help="an earlier backup, or the folder with the newest: save only what is new"
        )
        saving.add_argument(
            "--no-verify",
            action="store_true",
            help="don't restore it into a store of its own (which for a moment takes the size of the database on disk)",
        )
        restoring = actions.add_parser("restore", help="bring a backup back")
        restoring.add_argument("source", type=Path, help="a backup, or a folder, whose newest backup it is then")
        restoring.add_argument(
            "--replace", action="store_true", help="take the place of the calls that are in the store now"
        )
        copying = actions.add_parser("copy", help="bring another ClickHouse to hold the same, day by day; run it again")
        copying.add_argument(
            "--to", help="its DSN; SPENDWATCH_CLICKHOUSE_NEW in the environment keeps the password off the command line"
        )
        copying.add_argument("--layout", choices=("single", "cluster"), default="single", help="the layout there")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        """Run it."""
        try:
            with connect(settings.SPENDWATCH_CLICKHOUSE_DSN, caller="store") as ch:
                if action == "backup":
                    made = backup(ch, options["target"], base=options["base"], verify=not options["no_verify"])
                    since = f", on top of {made.base}" if made.base else ""
                    proven = "not verified" if made.figures is None else "verified by restoring it"
                    held = f": {made.figures.calls} calls, USD {made.figures.cost}" if made.figures else ""
                    self.stdout.write(f"saved {made.path} ({made.size_bytes} bytes{since}), {proven}{held}")
                elif action == "copy":
                    self._copy(ch, options["to"] or os.environ.get("SPENDWATCH_CLICKHOUSE_NEW", ""), options["layout"])
                else:
                    found = restore(ch, options["source"], replace=options["replace"])
                    self.stdout.write(f"restored {found.calls} calls, USD {found.cost}")
        except SpendwatchError as error:
            raise CommandError(str(error)) from error

    def _copy(self, source: Connection, dsn: str, layout: Layout) -> None:
        if not dsn:
            raise ConfigError(
                "expected the DSN of the other ClickHouse, found none. Set SPENDWATCH_CLICKHOUSE_NEW, or say --to DSN."
            )
        if Dsn.parse(dsn) == Dsn.parse(settings.SPENDWATCH_CLICKHOUSE_DSN):
            raise ConfigError("expected another ClickHouse, found the one in use. Correct SPENDWATCH_CLICKHOUSE_NEW.")
        create_database(dsn, caller="store", layout=layout)
        with connect(dsn, caller="store") as target:
            found = moving.copy(source, target, layout=layout, tell=self._tell)
        self.stdout.write(f"both hold {found.calls} calls, USD {found.cost}")

    def _tell(self, day: moving.Day) -> None:
        sent = f"{day.sent} rows sent" if day.sent else "equal"
        self.stdout.write(f"{day.day}: {day.totals.calls} calls, USD {day.totals.cost}, {sent}")
