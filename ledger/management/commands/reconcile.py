"""`manage.py reconcile --from DAY --to DAY [--source openrouter] [--format json|table]`."""

import json
from argparse import ArgumentParser
from datetime import date
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from ledger.balances import piers
from ledger.clickhouse import connection
from ledger.run import Run, run
from spendwatch import money


def day(text: str) -> date:
    """A UTC day of the command line. Raises ValueError."""
    return date.fromisoformat(text)


class Command(BaseCommand):
    """Compares, keeps and shows; a variance is a result, not a failure."""

    help = "Reconcile the recorded calls of some UTC days with the collected statements."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=day, required=True, help="first UTC day, YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=day, required=True, help="last UTC day, included")
        parser.add_argument("--source", default="openrouter")
        parser.add_argument("--format", choices=["table", "json"], default="table")

    def handle(self, *args: Any, first: date, last: date, source: str, format: str, **options: Any) -> None:
        if last < first:
            raise CommandError(f"expected --from before --to, found {first} and {last}")
        done = run(connection("ledger.reconcile"), source=source, first=first, last=last, now=timezone.now())
        self.stdout.write(json.dumps(as_json(done, source), indent=2) if format == "json" else as_table(done, source))


def as_json(done: Run, source: str) -> dict[str, Any]:
    """Everything found, amounts as decimal text."""
    return {
        "source": source,
        "days": [
            {
                "day": str(each.day),
                "statement": money.text(each.statement_total),
                "recorded": money.text(each.recorded_total),
                "variance": money.text(each.variance_total),
                "cells": each.cells,
                "agreed": each.agreed,
                "variances": [
                    {
                        "class": variance.variance_class,
                        "amount": money.text(variance.amount),
                        "model": variance.model,
                        "endpoint": variance.endpoint,
                        "key_hash": variance.key_hash,
                        "key_name": variance.key_name,
                        "status": variance.status,
                        "evidence": variance.evidence,
                    }
                    for variance in each.variances.all()
                ],
            }
            for each in done.days
        ],
        "uncovered": [str(each) for each in done.uncovered],
        "bridge": [
            {
                "account": account,
                "day": str(pier.day),
                "used_before": money.text(pier.used_before),
                "stated_before": money.text(pier.stated_before),
                "opening": money.text(pier.opening),
                "difference": money.text(pier.difference),
            }
            for account, pier in piers(source)
        ],
    }


def as_table(done: Run, source: str) -> str:
    """The same for people."""
    out = [f"{'day':<10}  {'statement':>16}  {'recorded':>16}  {'variance':>16}  cells agreed"]
    total = Decimal(0)
    for each in done.days:
        total += each.variance_total
        out.append(
            f"{each.day!s:<10}  {money.text(each.statement_total):>16}  {money.text(each.recorded_total):>16}  "
            f"{money.text(each.variance_total):>16}  {each.cells:>5} {each.agreed:>6}"
        )
        out += [
            f"            {variance.variance_class:<12} {money.text(variance.amount):>16} USD  {variance.model} "
            f"{variance.endpoint} {variance.key_name or variance.key_hash[:12]}: {variance.evidence['reason']}"
            for variance in each.variances.all()
        ]
    out.append(
        f"{len(done.days)} days compared, {money.text(total)} USD in all; {done.new} changed since the last run."
    )
    if done.uncovered:
        out.append(f"{len(done.uncovered)} days are on no statement: {', '.join(map(str, done.uncovered))}")
    out += [
        f"{source} {account} {pier.day}: used {money.text(pier.used_before)} USD until then, "
        f"{money.text(pier.difference)} beside the statements"
        for account, pier in piers(source)
    ]
    return "\n".join(out)
