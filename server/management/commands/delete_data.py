"""`manage.py delete_data --user ID | --project SLUG --by NAME [--dry-run]`: forget a user of the apps, or a project."""

import hashlib
import hmac
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.management.base import BaseCommand, CommandError

from server import forget
from server.models import Call
from spendwatch.clickhouse import deletion
from spendwatch.clickhouse.client import connect
from spendwatch.errors import SpendwatchError


class Command(BaseCommand):
    """Says what is held; without --dry-run takes it out and logs that it did. Run it again if it was interrupted."""

    help = (
        "Delete every call of one user or project, from the calls, the sums and the evidence of incidents. Backups "
        "made before still hold them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Whose data, who asks, and whether only to look."""
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("--user", help="the id that the apps tag calls with (tags(user=...))")
        whose.add_argument("--project", help="the project's slug")
        parser.add_argument("--by", help="your user name in the admin, for the log")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--no-wait", action="store_true", help="don't wait until the old files are off the disk")

    def handle(self, *args: Any, user: str | None, project: str | None, **options: Any) -> None:
        """Run it."""
        kind: deletion.Kind = "user" if user is not None else "project"
        name = (user if user is not None else project) or ""
        by = None if options["dry_run"] else self._who(options["by"])
        try:
            with connect(settings.SPENDWATCH_CLICKHOUSE_DSN, caller="server.delete_data") as ch:
                held = deletion.held(ch, kind, name)
                # A session belongs to its user; a project's may be shared with others.
                names = {name, *(held.sessions if kind == "user" else ())}
                self.stdout.write(f"{held.calls} calls in {len(held.sessions)} sessions" + _span(held))
                if by is None:
                    self._say(forget.traces(names, of_project=kind == "project"), "would be changed")
                    return
                gone = deletion.delete(ch, kind, name, disk_s=0 if options["no_wait"] else deletion.PATIENCE_S)
        except (SpendwatchError, ValueError) as error:
            raise CommandError(str(error)) from error
        changed = forget.forget(names, of_project=kind == "project")
        LogEntry.objects.create(
            user_id=by.pk,
            content_type=ContentType.objects.get_for_model(Call),
            object_repr=f"{kind} {fingerprint(name)}",
            action_flag=DELETION,
            change_message=f"Deleted {gone.calls} calls and changed {sum(changed.rows.values())} rows of evidence.",
        )
        self.stdout.write(f"deleted {gone.calls} calls; summed {gone.hours} hours again")
        if gone.left_on_disk:
            self.stdout.write(f"{gone.left_on_disk} old files go off the disk within minutes")
        self._say(changed, "changed")
        self.stdout.write("backups made before still hold them: delete those, or run this again after a restore")

    def _who(self, username: str | None) -> Any:
        found = get_user_model().objects.filter(username=username, is_active=True).first() if username else None
        if found is None:
            raise CommandError(
                f"expected --by with the name of an active user of the admin, found {username!r}. The log says who "
                "deleted what; --dry-run needs none."
            )
        return found

    def _say(self, traces: forget.Traces, verb: str) -> None:
        for label, count in sorted(traces.rows.items()):
            self.stdout.write(f"{count} x {label} {verb}")
        for kept in traces.kept:
            self.stdout.write(f"not changed: {kept} names it; decide in the admin")


def fingerprint(name: str) -> str:
    """How the log names whom it was about: whoever knows the id and this server's key can check, nobody can read it."""
    return hmac.new(settings.SECRET_KEY.encode(), f"delete_data {name}".encode(), hashlib.sha256).hexdigest()[:16]


def _span(held: deletion.Held) -> str:
    return f", {held.first:%Y-%m-%d} to {held.last:%Y-%m-%d}" if held.first and held.last else ""
