"""`manage.py store backup TARGET [--base PREVIOUS]` and `manage.py store restore SOURCE [--replace]`: the embedded
ClickHouse into a file and back, while it runs."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from spendwatch.clickhouse.client import connect
from spendwatch.clickhouse.store.backup import backup, restore
from spendwatch.errors import SpendwatchError


class Command(BaseCommand):
    """Saves or restores; exits with 1 and one line when it can't."""

    help = "Back up or restore the embedded ClickHouse. A ClickHouse server makes its own backups."

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
                else:
                    found = restore(ch, options["source"], replace=options["replace"])
                    self.stdout.write(f"restored {found.calls} calls, USD {found.cost}")
        except SpendwatchError as error:
            raise CommandError(str(error)) from error
