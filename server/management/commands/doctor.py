"""`manage.py doctor`: what is set, reachable and wrong, and what to do."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from server.doctor import Grade, examine


class Command(BaseCommand):
    """Prints each finding; exits with 1 when something is wrong."""

    help = "Say what is set up, what is wrong and what to do."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        worst = False
        for finding in examine():
            style = {Grade.GOOD: self.style.SUCCESS, Grade.WARNING: self.style.WARNING, Grade.BAD: self.style.ERROR}
            self.stdout.write(f"{style[finding.grade](f'{finding.grade.value:>5}')}  {finding.part}: {finding.text}")
            if finding.advice:
                self.stdout.write(f"       -> {finding.advice}")
            worst = worst or finding.grade is Grade.BAD
        if worst:
            sys.exit(1)
