"""`manage.py import_calls FILE --project SLUG`: calls of the past from a CSV, JSON lines or Parquet file."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from collectors.imports import calls, load, mapping
from collectors.imports.command import PROJECT_HELP, bar, check_project, finish
from collectors.imports.files import Source
from collectors.imports.models import Import
from ledger.prices import current_book
from spendwatch.errors import SpendwatchError


class Command(BaseCommand):
    """Imports, or goes on where it was left; exits with 1 and one line when it can't."""

    help = "Import calls from a file. Run it again to go on after an interruption; what is stored counts once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options of the command."""
        parser.add_argument("file", type=Path, help=".csv, .jsonl, .ndjson (these also as .gz) or .parquet")
        parser.add_argument("--project", required=True, help=PROJECT_HELP)
        parser.add_argument(
            "--mapping",
            metavar="NAME",
            help=f"one of {', '.join(mapping.shipped())}, or a TOML file that says which column is which "
            "(docs/import.md); without it, columns are named as in llm_calls or GenAI semconv",
        )
        parser.add_argument(
            "--identify-by",
            metavar="COLUMN[,COLUMN]",
            default="",
            help="columns that together are different for each row, when it has neither a reply's id nor a span's",
        )
        parser.add_argument("--rejects", type=Path, help="where rows that can't be taken go (FILE.rejects.csv)")
        parser.add_argument("--again", action="store_true", help="from the first row, also if some were imported")

    def handle(self, *args: Any, file: Path, project: str, **options: Any) -> None:
        """Run it."""
        rejects = load.Rejects(options["rejects"] or file.with_name(f"{file.name}.rejects.csv"))
        try:
            check_project(project)
            source = Source(file.resolve())
            chosen = mapping.load(options["mapping"]) if options["mapping"] else mapping.usual()
            by = tuple(name.strip() for name in options["identify_by"].split(",") if name.strip())
            chosen = chosen.identified_by(by)
            missing = chosen.unknown(source.header())
            if missing:
                raise CommandError(
                    f"expected columns for {', '.join(missing)}; found {', '.join(source.header()[:40]) or 'no row'}. "
                    "Say with --mapping which column is which (docs/import.md)."
                )
            job = load.begin(f"file:{source.path}", version=source.version, project=project, again=options["again"])
            after = int(job.position or 0)
            if after and job.finished_at is None:
                self.stdout.write(f"going on after row {after} ({job.accepted} calls were imported)")
            if job.finished_at is not None:
                self.stdout.write(
                    f"{file.name} was imported on {job.finished_at:%Y-%m-%d %H:%M} UTC. --again does it again."
                )
                return
            within = calls.window(timezone.now(), settings.SPENDWATCH_RETENTION_DAYS)
            batches = calls.batches(source, chosen, after=after, project=project, within=within, book=current_book())
            with bar(total=source.total(), unit="rows" if source.kind == "parquet" else "B") as shown:

                def progress(done: Import, _: load.Batch) -> None:
                    shown.n = source.done
                    shown.set_postfix(calls=done.accepted, rejected=done.rejected)

                finish(self.stdout, load.run(job, batches, rejects, progress), rejects)
        except KeyboardInterrupt:
            raise CommandError("stopped. Run the same command again to go on.") from None
        except SpendwatchError as error:
            raise CommandError(f"{error} Run the same command again to go on.") from error
        finally:
            rejects.close()
