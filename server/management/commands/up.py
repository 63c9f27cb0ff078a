"""`manage.py up`: the whole service on this machine, until Ctrl-C."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from server.env import Env
from server.supervisor import FirstStart, Service, Stopped

PORTS = ("web", "ingest", "store")


class Command(BaseCommand):
    """Starts every process, says when they are ready, and stops them together."""

    help = "Start the whole service on this machine; Ctrl-C stops it."
    # The parts are checked by the processes that use them.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in PORTS:
            parser.add_argument(
                f"--{name}-port", type=int, metavar="N", help=f"instead of SPENDWATCH_{name.upper()}_PORT"
            )
        parser.add_argument("--logs", action="store_true", help="show what the processes write, not only in the files")

    def handle(self, *args: Any, **options: Any) -> None:
        env: Env = settings.SPENDWATCH
        chosen = {f"{name}_port": options[f"{name}_port"] for name in PORTS if options[f"{name}_port"] is not None}
        if chosen:
            env = env.with_values(**chosen)
        self._say(f"Starting Spendwatch on the data in {env.data_dir} …")
        try:
            with Service(env, say=self._say, echo=self._say if options["logs"] else None) as service:
                service.start(made=lambda first: self._announce(first, env))
                self._say(self._ready(env))
                service.run()
                self._say("Stopping …")
        except Stopped:
            self._say("Stopped before everything was ready.")
            sys.exit(1)
        self._say("Stopped.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _announce(self, first: FirstStart, env: Env) -> None:
        if first.admin_password is not None:
            self._say(
                "\nFirst start: an administrator was made. This is the only time the password is shown.\n"
                f"  user      admin\n  password  {first.admin_password}\n"
            )
        if first.ingest_token is not None:
            self._say(
                "First start: a project “default” and its token were made. This is the only time the token is shown.\n"
                "  Put one line at the top of your app:\n"
                "      import spendwatch; spendwatch.instrument()\n"
                "  and start it with:\n"
                f"      SPENDWATCH_ENDPOINT={env.ingest_url}\n"
                f"      SPENDWATCH_TOKEN={first.ingest_token}\n"
            )

    def _ready(self, env: Env) -> str:
        return (
            f"Spendwatch is ready.\n  pages     {env.base_url}/admin/\n  ingest    {env.ingest_url}/v1/traces\n"
            f"  logs      {env.data_dir / 'logs'}\nCtrl-C stops it."
        )
