"""Alerts in real Celery worker processes, one of them killed in the middle of a message."""

import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu import Connection as Broker
from kombu import Queue

from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.rows import insert
from tests.alerts.made_up_calls import priced
from tests.fakes.slack import FakeSlack
from tests.fixtures.services import RABBITMQ_URL, REDIS_URL

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120

SET_UP = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from alerts.models import Budget, Channel
channel = Channel.objects.create(name="ops", kind="slack_bot", secret="xoxb-1", slack_channel="C0OPS", base_url={api!r})
Budget.objects.create(name="search", scope={{"team": ["search"]}}, amount=10, channel=channel)
for n in range({more}):
    Budget.objects.create(name=f"b{{n}}", scope={{"team": ["shop"]}}, amount=10, channel=channel)
"""


def wait_for(what: Callable[[], object]) -> None:
    """Until it is true; how long it takes is not judged, only that it happens."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


class Service:
    """A data folder, a broker queue of its own, and worker processes on them."""

    def __init__(self, folder: Path, broker: str, clickhouse: str) -> None:
        self.folder, self.broker = folder, broker
        self.queue = f"spendwatch-test-{secrets.token_hex(6)}"
        self.env = {
            **os.environ,
            "SPENDWATCH_DATA_DIR": str(folder),
            "SPENDWATCH_BROKER_URL": broker,
            "SPENDWATCH_CLICKHOUSE": clickhouse,
            "DJANGO_SETTINGS_MODULE": "server.settings",
        }
        self.app = Celery(broker=broker)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = (folder / "worker.log").open("wb")

    def set_up(self, slack: FakeSlack) -> None:
        """A database with one budget of the team search, four of the team shop."""
        code = SET_UP.format(api=slack.api_url, more=4)
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=self.env, check=True)

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "celery", "-A", "server", "worker", "-P", "threads", "-c", "4", "-Q", self.queue,
            "--without-gossip", "--without-mingle", "--without-heartbeat", "-n", f"{secrets.token_hex(4)}@%h",
        ]  # fmt: skip
        worker = subprocess.Popen(
            command, cwd=ROOT, env=self.env, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.workers.append(worker)
        return worker

    def send(self, *names: str) -> None:
        for name in names:
            self.app.send_task(f"spendwatch.alerts.{name}", queue=self.queue)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.folder / "spendwatch.sqlite3", timeout=20)) as db, db:
            return db.execute(statement).fetchall()

    def states(self) -> list[object]:
        return [row[0] for row in self.sql("SELECT state FROM spendwatch_alerts_delivery ORDER BY id")]

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.log.close()
        with Broker(self.broker) as broker:
            Queue(self.queue, channel=broker.default_channel).delete()
        self.app.close()


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    if request.param == "rabbitmq":
        return RABBITMQ_URL
    # A database of its own, so that a run beside this one does not restore our unfinished tasks into its time.
    return urlsplit(REDIS_URL)._replace(path=f"/{random.randint(1, 15)}").geturl()


@pytest.fixture
def service(
    tmp_path: Path, broker_url: str, migrated_store_dsn: str, clickhouse: Connection, slack: FakeSlack
) -> Iterator[Service]:
    made = Service(tmp_path, broker_url, migrated_store_dsn)
    try:
        made.set_up(slack)
        yield made
    finally:
        made.stop()


def spend(ch: Connection, usd: str, team: str = "search") -> None:
    now = datetime.now(UTC)
    insert(ch, [priced(now - timedelta(seconds=1), usd, team=team)], received_at=now)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "broker_url",
    [
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
    ],
    indirect=True,
)
def test_a_worker_killed_between_sending_and_noting_it_is_followed_by_no_second_message(
    service: Service, clickhouse: Connection, slack: FakeSlack
) -> None:
    spend(clickhouse, "6")
    first = service.start_worker()
    service.send("evaluate_budgets")
    wait_for(lambda: service.states() == ["pending"])

    # Slack has taken the message and does not answer yet: now the worker dies.
    slack.misbehave("slow", seconds=60, method="chat.postMessage")
    service.send("deliver")
    wait_for(lambda: slack.messages)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert service.states() == ["sending"]

    service.sql("UPDATE spendwatch_alerts_delivery SET lease_until = '2026-01-01 00:00:00'")
    service.start_worker()
    service.send("evaluate_budgets", "deliver", "deliver", "evaluate_budgets", "deliver")
    wait_for(lambda: service.states() == ["sent"])

    # What comes later goes on in the same thread, and shows that the tasks above have had their turn.
    spend(clickhouse, "5")
    service.send("evaluate_budgets")
    wait_for(lambda: len(service.states()) == 2)
    service.send("deliver", "deliver")
    wait_for(lambda: service.states() == ["sent", "sent"])
    (root,) = slack.roots()
    assert [m.versions[0].split(":")[0] for m in (root, *slack.replies(root))] == [
        "Budget search passed 50 %",
        "Budget search passed 100 %",
    ]
    assert len(slack.messages) == 2


@pytest.mark.slow
@pytest.mark.parametrize("broker_url", [pytest.param("redis", marks=pytest.mark.needs("redis"))], indirect=True)
def test_processes_that_judge_and_deliver_at_once_send_each_message_once(
    service: Service, clickhouse: Connection, slack: FakeSlack
) -> None:
    spend(clickhouse, "20", team="search")
    spend(clickhouse, "20", team="shop")
    for _ in range(2):
        service.start_worker()
    service.send(*["evaluate_budgets", "deliver", "evaluate_budgets", "evaluate_budgets", "deliver"] * 3)
    wait_for(lambda: len(service.states()) == 5)
    service.send(*["deliver"] * 4)
    wait_for(lambda: service.states() == ["sent"] * 5)
    told = sorted(message.text.split()[1] for message in slack.messages)
    assert told == ["b0", "b1", "b2", "b3", "search"]
