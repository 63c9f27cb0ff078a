"""`manage.py import_otel_traces --project SLUG`: calls among the spans that an OTel Collector keeps in ClickHouse."""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from collectors.imports import calls, load, otel_traces
from collectors.imports.command import PROJECT_HELP, bar, check_project, finish
from collectors.imports.models import Import
from ledger.prices import current_book
from spendwatch.clickhouse.client import Dsn, connect
from spendwatch.errors import SpendwatchError


def _day(text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise ArgumentTypeError(f"expected a day as YYYY-MM-DD, found {text!r}") from None


class Command(BaseCommand):
    """Imports, or goes on where it was left; exits with 1 and one line when it can't."""

    help = (
        "Import the calls from the table otel_traces of an OpenTelemetry Collector. Run it again for what came since."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options of the command."""
        parser.add_argument("--project", required=True, help=PROJECT_HELP)
        parser.add_argument(
            "--dsn",
            help="the ClickHouse with the table, http(s)://user:password@host:8123/database (SPENDWATCH_CLICKHOUSE)",
        )
        parser.add_argument("--table", default="otel_traces", help="the table, or database.table (otel_traces)")
        parser.add_argument("--from", dest="since", type=_day, help="the first UTC day (that of the first span)")
        parser.add_argument(
            "--to", dest="until", type=_day, help="the UTC day after the last (after that of the last span)"
        )
        parser.add_argument("--rejects", type=Path, default=Path("otel_traces.rejects.csv"))
        parser.add_argument("--again", action="store_true", help="from the first span, also if some were imported")

    def handle(self, *args: Any, project: str, **options: Any) -> None:
        """Run it."""
        rejects = load.Rejects(options["rejects"])
        dsn = options["dsn"] or settings.SPENDWATCH_CLICKHOUSE_DSN
        now = timezone.now()
        try:
            check_project(project)
            with connect(dsn, caller="import_otel_traces") as ch:
                table = otel_traces.Table(ch=ch, name=options["table"])
                table.check()
                there = table.span_of_time()
                if there is None:
                    self.stdout.write(f"{table.name} is empty.")
                    return
                within = calls.window(now, settings.SPENDWATCH_RETENTION_DAYS)
                since = max(options["since"] or there[0], there[0], within.since)
                until = min(options["until"] or there[1] + timedelta(hours=1), there[1] + timedelta(hours=1))
                job = load.begin(
                    f"otel_traces:{Dsn.parse(dsn).place}/{table.name}"[:500],
                    version=f"{options['since'] or ''}",
                    project=project,
                    again=options["again"],
                )
                after = job.position
                if after and job.finished_at is not None:
                    # Spans come late: look again at the last day.
                    since_ns = int(after[0]) - int(otel_traces.OVERLAP.total_seconds()) * 10**9
                    after = [max(since_ns, 0), "", ""]
                hours = max(0, (until - since) // timedelta(hours=1))
                with bar(total=hours, unit="h") as shown:

                    def progress(done: Import, batch: load.Batch) -> None:
                        at = datetime.fromtimestamp(int(batch.position[0]) / 1e9, UTC)
                        shown.n = min(hours, max(0, (at - since) // timedelta(hours=1)))
                        shown.set_postfix(calls=done.accepted, rejected=done.rejected)

                    batches = otel_traces.batches(
                        table, since=since, until=until, after=after, project=project, book=current_book(), now=now
                    )
                    finish(self.stdout, load.run(job, batches, rejects, progress), rejects)
        except KeyboardInterrupt:
            raise CommandError("stopped. Run the same command again to go on.") from None
        except SpendwatchError as error:
            raise CommandError(f"{error} Run the same command again to go on.") from error
        finally:
            rejects.close()
