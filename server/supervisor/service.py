"""Spendwatch on one machine: which processes there are, in which order they start.

Only what is embedded is started: a ClickHouse or a broker named by the environment is used as it is. Invariant: when
start() raises, nothing it started is left. Never here: how a process is watched.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import Self

from server.env import ROOT, Env
from server.supervisor.child import Child
from server.supervisor.preflight import check_ports, ports_of, sole_use
from server.supervisor.ready import answers, beats
from server.supervisor.supervisor import Supervisor
from server.supervisor.valkey import valkey


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What the first start on a data folder made; each secret is known only now. None: it was there already."""

    admin_password: str | None
    ingest_token: str | None


class Service:
    """The processes of one data folder. Use it from the main thread:

    with Service(env, say=print) as service:
        made = service.start()
        service.run()
    """

    def __init__(self, env: Env, *, say: Callable[[str], None], echo: Callable[[str], None] | None = None) -> None:
        self.env = env.with_values(supervised=True)
        self.logs = env.data_dir / "logs"
        self._supervisor = Supervisor(logs=self.logs, directory=ROOT, say=say, echo=echo)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held:
            held.enter_context(sole_use(self.env.data_dir))
            check_ports(ports_of(self.env))
            held.enter_context(self._supervisor)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    @property
    def pids(self) -> dict[str, int]:
        """Child name -> process id, of those that live now."""
        return self._supervisor.pids

    def start(self, made: Callable[[FirstStart], None] | None = None) -> FirstStart:
        """Start everything and wait until all of it is ready.

        `made` is told what the first start made as soon as it is made: it can't be asked for again, also when a later
        step fails. Raises StartError or ConfigError when something does not start, Stopped on a signal.
        """
        for child in self._foundation():
            self._supervisor.start(child)
        found = json.loads(self.manage("prepare", "--json"))
        first = FirstStart(admin_password=found["admin_password"], ingest_token=found["ingest_token"])
        if made is not None:
            made(first)
        for child in self._workers():
            self._supervisor.start(child)
        self._supervisor.wait_ready()
        return first

    def add(self, *children: Child) -> None:
        """Start further processes beside the service, and wait until they are ready. Raises as start() does."""
        for child in children:
            self._supervisor.start(child)
        self._supervisor.wait_ready()

    def end(self, name: str) -> None:
        """End one process, with its chance to finish; it is not started again."""
        self._supervisor.end(name)

    def none_died(self) -> None:
        """Raise StartError when a process ended, Stopped when a signal asked to stop; for whoever waits for
        something else before run()."""
        self._supervisor.none_died()

    def run(self, until: Event | None = None) -> None:
        """Keep everything alive until a signal, or until `until` is set."""
        self._supervisor.run(until)

    def manage(self, *arguments: str) -> str:
        """Run a manage.py command with this service's settings to its end; its standard output."""
        return self._supervisor.step(
            arguments[0], [sys.executable, str(ROOT / "manage.py"), *arguments], self.env.as_environment()
        )

    def _foundation(self) -> list[Child]:
        children = []
        if self.env.embedded_broker:
            children.append(valkey(self.env.valkey_socket, self.env.data_dir / "valkey"))
        if self.env.embedded_store:
            children.append(self._store())
        return children

    def _store(self) -> Child:
        env = self.env
        env.secret("store_password")
        return self._child(
            "store",
            [
                *f"-m spendwatch.clickhouse.store --port {env.store_port} --data".split(),
                str(env.data_dir / "store"),
                "--password-file",
                str(env.data_dir / "secrets" / "store_password"),
            ],
            answers("127.0.0.1", env.store_port, "/ping"),
            stage=0,
        )

    def _workers(self) -> list[Child]:
        env = self.env
        run = env.data_dir / "run"
        ingest = f"-m collectors.otlp --host {env.bind} --port {env.ingest_port}"
        web = f"-m granian server.wsgi:application --interface wsgi --host {env.bind} --port {env.web_port}"
        worker = "-m celery -A server worker -P threads -c 4 --without-gossip --without-mingle --loglevel INFO"
        beat = "-m celery -A server beat --pidfile= --loglevel INFO"
        return [
            self._child(
                "ingest",
                ingest.split(),
                answers(env.local_host, env.ingest_port, "/readyz"),
            ),
            self._child(
                "web",
                f"{web} --blocking-threads 4 --http 1 --no-ws".split(),
                answers(env.local_host, env.web_port, "/readyz"),
            ),
            self._child("worker", worker.split(), beats(run / "worker.alive")),
            self._child("beat", beat.split(), beats(run / "beat.alive")),
        ]

    def _child(self, name: str, arguments: list[str], ready: Callable[[int], str | None], *, stage: int = 1) -> Child:
        return Child(
            name=name,
            argv=[sys.executable, *arguments],
            ready=ready,
            environment=self.env.as_environment(),
            stage=stage,
        )
