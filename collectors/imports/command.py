"""What the two commands that import have in common: the project, the bar, the last line."""

from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from tqdm import tqdm

from collectors.imports.load import Rejects
from collectors.imports.models import Import
from collectors.models import Project

PROJECT_HELP = "the slug of the project whose calls these are"


def check_project(slug: str) -> None:
    """Raise CommandError when there is no such project."""
    if not Project.objects.filter(slug=slug).exists():
        known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f"expected the slug of a project, found {slug!r}. There are: {known}. Add it in the admin.")


def bar(*, total: int | None, unit: str) -> "tqdm[Any]":
    """A progress bar on a terminal; nothing in a log."""
    return tqdm(total=total, unit=unit, unit_scale=unit == "B", disable=None, leave=False)


def finish(stream: OutputWrapper, job: Import, rejects: Rejects) -> None:
    """Say what came of it."""
    line = f"imported {job.accepted} calls into project {job.project}"
    if job.rejected:
        line += f"; {job.rejected} could not be taken: {rejects.path} has each with its reason"
    stream.write(f"{line}. The hourly sums follow within a minute.")
