"""`manage.py collect openrouter [--account NAME]`: fetch an account's statements now."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from collectors.openrouter.collect import collect
from collectors.openrouter.models import OpenRouterAccount
from spendwatch.errors import CollectError, ReadError


class Command(BaseCommand):
    """Collects; exits with 1 when an account could not be."""

    help = "Collect a provider's statements now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", choices=["openrouter"])
        parser.add_argument("--account", help="only this one; without it, every active account")

    def handle(self, *args: Any, source: str, account: str | None, **options: Any) -> None:
        accounts = OpenRouterAccount.objects.filter(**({"name": account} if account else {"active": True}))
        if not accounts:
            wanted = f"an account {account!r}" if account else "an active account"
            raise CommandError(
                f"expected {wanted} of {source}, found none. Add it in the admin under OpenRouter accounts."
            )
        failed = []
        for each in accounts:
            try:
                done = collect(each, now=timezone.now())
            except (CollectError, ReadError) as error:
                failed.append(str(error))
            else:
                self.stdout.write(f"{each.name}: {done.documents} new documents, {done.lines} new lines")
        if failed:
            raise CommandError("\n".join(failed))
