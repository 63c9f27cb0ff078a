"""kill -9 under traffic: what was acknowledged is there, everything is there in the end, and nothing twice."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from collectors.models import IngestToken, Project
from collectors.otlp.ingest import Ingest
from spendwatch.calls import LLMCall
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.migrate import migrate
from tests.collectors.otlp import otlp
from tests.collectors.otlp.conftest import serving
from tests.collectors.otlp.test_call import WHOLE
from tests.fixtures.store import start_store

pytestmark = pytest.mark.timeout(420)

ROOT = Path(__file__).resolve().parents[3]
SENDERS, REQUESTS, EACH = 5, 15, 4


def calls(sender: int, request: int) -> list[LLMCall]:
    """Half of them are known by the provider's id, half by their span alone."""
    out = []
    for n in range(EACH):
        number = (sender * REQUESTS + request) * EACH + n + 1
        out.append(
            replace(
                WHOLE,
                started_at=datetime.now(UTC),
                span_id=f"{number:016x}",
                response_id=f"gen-1763769600-{number}" if n % 2 else None,
            )
        )
    return out


@dataclass
class Traffic:
    """Senders that keep each request until it is acknowledged, as exporters do."""

    url: str
    token: str
    answers: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    unreachable: int = 0
    threads: list[threading.Thread] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    given_up: bool = False

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._send_all, args=(sender,)) for sender in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def finish(self) -> None:
        for thread in self.threads:
            thread.join()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=120), self.answers

    def _send_all(self, sender: int) -> None:
        headers = {"content-type": "application/x-protobuf", "authorization": f"Bearer {self.token}"}
        with httpx2.Client(timeout=60) as http:
            for request in range(REQUESTS):
                body = otlp.own_request(calls(sender, request))
                while not self.given_up:
                    try:
                        response = http.post(f"{self.url}/v1/traces", content=body, headers=headers)
                    except httpx2.TransportError:
                        with self.changed:
                            self.unreachable += 1
                            self.changed.notify_all()
                        time.sleep(0.05)
                        continue
                    with self.changed:
                        self.answers[response.status_code] += 1
                        self.without_retry_after += (
                            response.status_code != 200 and "retry-after" not in response.headers
                        )
                        self.changed.notify_all()
                    if response.status_code == 200:
                        break
                    time.sleep(0.05)


@contextmanager
def traffic(url: str, token: str) -> Iterator[Traffic]:
    running = Traffic(url, token)
    running.start()
    try:
        yield running
    finally:
        running.given_up = sys.exc_info()[0] is not None
        running.finish()


def assert_everything_once(ch: Connection) -> None:
    expected = SENDERS * REQUESTS * EACH
    found = ch.query("spans", "SELECT count(), uniqExact(span_id), sum(effective_cost) FROM llm_calls FINAL")
    assert found == [(expected, expected, WHOLE.reported_cost * expected)]  # type: ignore[operator]


def test_a_store_killed_under_traffic_loses_no_acknowledged_call_and_doubles_none(
    tmp_path: Path, transactional_db: None, settings: Any
) -> None:
    store = start_store(tmp_path)
    try:
        with connect(store.dsn, caller="tests") as ch:
            migrate(ch)
        settings.SPENDWATCH_CLICKHOUSE_DSN = store.dsn
        _, secret = IngestToken.issue(Project.objects.create(slug="shop", name="Shop"), "tests")
        port = int(store.base.rsplit(":", 1)[1])
        with serving(Ingest()) as url, traffic(url, secret) as running:
            running.wait_for(lambda: running.answers[200] >= 10)
            store.process.kill()
            store.process.wait()
            running.wait_for(lambda: running.answers[503] >= SENDERS)
            assert store.process.stdout is not None
            store.process.stdout.close()
            store = start_store(tmp_path, port=port)
            running.finish()
        assert set(running.answers) == {200, 503}
        assert running.without_retry_after == 0
        assert running.unreachable == 0
        with connect(store.dsn, caller="tests") as ch:
            assert_everything_once(ch)
    finally:
        store.stop()
        assert store.process.stdout is not None
        store.process.stdout.close()


PREPARE = """
import django
django.setup()
from django.core.management import call_command
from collectors.models import IngestToken, Project
call_command("migrate", verbosity=0)
print(IngestToken.issue(Project.objects.create(slug="shop", name="Shop"), "tests")[1])
"""


@pytest.fixture
def environment(tmp_path: Path, migrated_store_dsn: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SPENDWATCH_")},
        "DJANGO_SETTINGS_MODULE": "server.settings",
        "SPENDWATCH_DATA_DIR": str(tmp_path),
        "SPENDWATCH_CLICKHOUSE": migrated_store_dsn,
    }


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start(environment: dict[str, str], port: int) -> subprocess.Popen[bytes]:
    """The collector's own process, once it could store a call."""
    command = [sys.executable, "-m", "collectors.otlp", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    until = time.monotonic() + 90
    while True:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=10).status_code == 200:
                return process
        except httpx2.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"the collector did not get ready, it ended with {process.wait()}")
        time.sleep(0.1)


def test_a_collector_killed_under_traffic_loses_no_acknowledged_call_and_doubles_none(
    clickhouse: Connection, environment: dict[str, str], free_port: int
) -> None:
    prepared = subprocess.run(
        [sys.executable, "-c", PREPARE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    process = start(environment, free_port)
    try:
        with traffic(f"http://127.0.0.1:{free_port}", prepared.stdout.split()[-1]) as running:
            running.wait_for(lambda: running.answers[200] >= 10)
            process.kill()
            process.wait()
            running.wait_for(lambda: running.unreachable >= SENDERS)
            process = start(environment, free_port)
            running.finish()
        assert set(running.answers) <= {200, 503}
        assert running.without_retry_after == 0
        assert_everything_once(clickhouse)
        second = subprocess.run(
            [sys.executable, "-m", "collectors.otlp", "--port", str(free_port)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert f"expected to listen on 127.0.0.1 port {free_port}, found: " in second.stderr
        assert "Address already in use" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
