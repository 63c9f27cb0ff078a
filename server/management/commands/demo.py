"""`manage.py demo`: the service and a fictitious company on loopback, with a guided tour."""

import queue
import shutil
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections

from ledger.clickhouse import connection
from server.celery import app as celery_app
from server.demo import seed
from server.demo.tour import Claim, Tour
from server.demo.world import COMPANY, HISTORY_DAYS, World
from server.env import Env
from server.supervisor import Service, Stopped
from spendwatch.calls import Window
from spendwatch.clickhouse import queries

PORTS = ("web", "ingest", "store")
DRAMA_S = 120.0
"""How long the app's bad day may take until it says that it is over."""
SETTLE_S = 60.0
"""How long what was told last may take to reach Slack."""

# What is planted in OpenRouter's statement: days ago, and the difference. Each stands in a cell of its own.
PLANTS: tuple[tuple[int, dict[str, object]], ...] = (
    (2, {"kind": "unobserved", "model": "openai/gpt-4.1-mini", "key_name": "somebody's laptop"}),
    (4, {"kind": "unbilled", "model": "anthropic/claude-sonnet-4.5"}),
    (5, {"kind": "price", "model": "meta-llama/llama-3.3-70b-instruct", "factor": "1.25"}),
    (6, {"kind": "tokens", "model": "openai/gpt-4.1-mini", "extra_prompt": 1000}),
    (7, {"kind": "byok", "model": "openai/gpt-5-mini"}),
    (8, {"kind": "rounding", "model": "openai/gpt-5-mini", "places": 5}),
)


class Command(BaseCommand):
    """Makes a small world, lets two weeks and a bad day happen in it, and shows what Spendwatch makes of that."""

    help = "Start the service with a fictitious company around it; Ctrl-C stops everything."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in PORTS:
            parser.add_argument(
                f"--{name}-port", type=int, metavar="N", help=f"instead of SPENDWATCH_{name.upper()}_PORT"
            )
        parser.add_argument(
            "--exit-after-tour",
            action="store_true",
            help="stop after the tour; the exit code is not 0 when one of its claims is false",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        env: Env = settings.SPENDWATCH
        chosen = {f"{name}_port": options[f"{name}_port"] for name in PORTS if options[f"{name}_port"] is not None}
        if chosen:
            env = env.with_values(**chosen)
        settings.SPENDWATCH, settings.SPENDWATCH_CLICKHOUSE_DSN = env, env.clickhouse_dsn
        world = World()
        try:
            with Service(env, say=self._say, echo=world.hear) as service:
                clear(env.data_dir)
                false = self._run(env, world, service, leave=options["exit_after_tour"])
        except Stopped:
            self._say("Stopped before the tour was over.")
            sys.exit(1)
        self._say("Stopped.")
        if false:
            sys.exit(1)

    def _run(self, env: Env, world: World, service: Service, *, leave: bool) -> int:
        """The demonstration from an empty folder to the end of the tour; how many of its claims are false."""
        self._say("Starting Spendwatch, and an OpenRouter and a Slack on loopback …")
        password = service.start().admin_password or ""
        service.add(*world.surroundings())
        token = seed.token()
        seed.accounts(world)
        self._say(f"Larkfield Books starts its app, with one added line. Two weeks of work, {HISTORY_DAYS} days:")
        service.add(world.company(env, token))
        self._until(world, service, "live", timeout_s=300)
        self._say(f"The first figures are on {env.base_url}/admin/ (user admin, password {password}).")
        self._say("OpenRouter's statement is collected and matched. Meanwhile Larkfield has a bad day …")
        planted = self._prove(world, service)
        self._until(world, service, "told", timeout_s=DRAMA_S)
        if leave:
            # The shop closes, so that the figures stand still while they are compared.
            service.end(COMPANY)
        false = self._show(Tour(env, world, planted, password), service)
        self._say(f"\n  pages   {env.base_url}/admin/   user admin   password {password}\n  Slack   {world.slack_url}/")
        if not leave:
            self._say("Ctrl-C stops everything.")
            service.run()
            self._say("Stopping …")
        return false

    def _until(self, world: World, service: Service, event: str, *, timeout_s: float) -> None:
        """Wait for an event of the app's, telling of those that come before it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            service.none_died()
            try:
                told = world.events.get(timeout=0.2)
            except queue.Empty:
                continue
            match told["event"]:
                case "history":
                    self._say(f"  day {told['day']} of {told['days']}")
                case "faults":
                    self._say("  a rate limit, a stream that broke, a reader who left")
                case "exported":
                    self._say(f"  a dear export, call {told['calls']}")
                case "runaway":
                    self._say(f"  the crawler searches the same for the {told['repeat']}. time")
            if told["event"] == event:
                return
        raise TimeoutError(f"expected the company's app to say {event!r} within {timeout_s:.0f} s; see the log folder")

    def _prove(self, world: World, service: Service) -> list[dict[str, Any]]:
        """Plant the differences, collect the statement, settle the aborted call, reconcile."""
        today = datetime.now(UTC).date()
        planted = [world.plant(placed(today, back, wish)) for back, wish in PLANTS]
        service.manage("collect", "openrouter")
        self._settle(world, service, today)
        service.manage(
            "reconcile",
            *("--from", (today - timedelta(days=HISTORY_DAYS)).isoformat()),
            *("--to", (today - timedelta(days=1)).isoformat()),
        )
        return planted

    def _settle(self, world: World, service: Service, today: date) -> None:
        """Have the worker ask what the readers who left on earlier days were billed."""
        world.let_generations_land()
        midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
        window = Window(midnight - timedelta(days=HISTORY_DAYS), midnight)
        celery_app.send_task("spendwatch.collectors.settle")
        deadline = time.monotonic() + SETTLE_S
        while queries.unsettled(connection("server.demo"), "openrouter", window, limit=1):
            service.none_died()
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected the aborted calls to be settled within {SETTLE_S:.0f} s")
            time.sleep(0.2)

    def _show(self, tour: Tour, service: Service) -> int:
        self._say("\nThe tour:")
        false = 0
        for claim in self._settled(tour, service):
            self._say(f"  {'✓' if claim.holds else '✗'} {claim.sentence}.\n      open {claim.look}")
            if not claim.holds:
                false += 1
                self._say(f"      FALSE: expected {claim.expected}, found {claim.found}")
        self._say(f"{false} of the tour's claims are false." if false else "Every claim of the tour was checked.")
        return false

    def _settled(self, tour: Tour, service: Service) -> list[Claim]:
        """The claims once all of them hold, or as they are when the time is up: what was done last is still on its
        way to the store and to Slack."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            service.none_died()
            claims = list(tour.claims())
            if all(claim.holds for claim in claims) or time.monotonic() > deadline:
                return claims
            time.sleep(1)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def placed(today: date, back: int, wish: dict[str, object]) -> dict[str, object]:
    """A wish, on a day so far back."""
    day = today - timedelta(days=back)
    if wish["kind"] == "unobserved":
        return {**wish, "at": datetime(day.year, day.month, day.day, 12, tzinfo=UTC).isoformat()}
    return {**wish, "day": day.isoformat()}


def clear(data_dir: Path) -> None:
    """Throw an earlier demonstration's world away; secrets, logs and the lock stay."""
    connections.close_all()
    for name in ("store", "valkey", "spool"):
        shutil.rmtree(data_dir / name, ignore_errors=True)
    for file in data_dir.glob("spendwatch.sqlite3*"):
        file.unlink()
