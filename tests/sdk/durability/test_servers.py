"""Servers whose workers come and go: what a worker recorded arrives once, however soon it ends."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.services import REDIS_URL
from tests.hooks.loopback import Loopback
from tests.sdk.conftest import ROOT
from tests.sdk.sink import Sink

Start = Callable[..., "subprocess.Popen[bytes]"]

ASKING = """
import os, sys
import httpx, spendwatch
URL = os.environ["TEST_PROVIDER"] + "/v1/chat/completions"
def ask():
    httpx.post(URL, json={"model": "gpt-4o-mini", "messages": []}, trust_env=False).raise_for_status()
"""


@pytest.fixture
def start(provider: Loopback, sink: Sink, tmp_path: Path) -> Iterator[Start]:
    """Start a program in tmp_path, where the modules are that a test writes."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str, **env: str) -> "subprocess.Popen[bytes]":
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("SPENDWATCH_", "OTEL_", "PYTEST_", "DJANGO_"))
        }
        with (tmp_path / "out.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **clean,
                    "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
                    "SPENDWATCH_ENDPOINT": sink.url,
                    "SPENDWATCH_SPOOL_DIR": str(tmp_path / "spool"),
                    "TEST_PROVIDER": provider.url,
                    "NO_PROXY": "*",
                    **env,
                },
                start_new_session=True,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write(path: Path, program: str) -> None:
    path.write_text(ASKING + textwrap.dedent(program))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def spooled(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "spool").rglob("*.spool"))


CELERY = """
import celery
from celery.signals import worker_process_init
app = celery.Celery("tasks", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.task_default_queue = os.environ["TEST_QUEUE"]
app.conf.result_backend_transport_options = {"global_keyprefix": os.environ["TEST_QUEUE"]}
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True
if os.environ["TEST_WHERE"] == "main":
    spendwatch.instrument(service="celery")
else:
    worker_process_init.connect(lambda **kw: spendwatch.instrument(service="celery"), weak=False)

@app.task
def work(n):
    with spendwatch.tags(feature=f"task-{n}"):
        ask()
    return os.getpid()
"""


@pytest.mark.needs("redis")
@pytest.mark.parametrize("where", ["main", "worker"])
def test_a_prefork_celery_whose_workers_do_one_task_each_loses_nothing(
    where: str, start: Start, sink: Sink, tmp_path: Path
) -> None:
    write(tmp_path / "tasks.py", CELERY)
    env = {"TEST_BROKER": REDIS_URL, "TEST_QUEUE": f"spendwatch-{uuid.uuid4().hex}", "TEST_WHERE": where}
    worker = start(
        *(sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2"),
        *("--max-tasks-per-child", "1", "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        **env,
    )
    send = "import tasks; r = [tasks.work.delay(n) for n in range(8)]; print(len({x.get(timeout=90) for x in r}))"
    out = subprocess.run(
        [sys.executable, "-c", send],
        cwd=tmp_path,
        env={
            **os.environ,
            **env,
            "TEST_PROVIDER": "",
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "OTEL_SDK_DISABLED": "true",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    log = (tmp_path / "out.log").read_text()
    assert out.stdout == "8\n", (out.stderr, log)
    if where == "main":
        # The main process looks after what its workers leave; nobody has to end, or to call again.
        sink.wait_for(8, timeout_s=60)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0, log
    if where == "worker":
        # Nothing is instrumented but the workers: what the last ones left is with the next process.
        following = "import spendwatch; spendwatch.instrument(); raise SystemExit(not spendwatch.flush(20))"
        assert start(sys.executable, "-c", following).wait(60) == 0
    assert len(sink.taken) == 8
    tagged = {a.value.string_value for s in sink.spans for a in s.attributes if a.key == "spendwatch.tags.feature"}
    assert tagged == {f"task-{n}" for n in range(8)}
    assert spooled(tmp_path) == []


WSGI = """
spendwatch.instrument(service="wsgi")
def application(environ, start_response):
    with spendwatch.tags(feature=environ["PATH_INFO"].strip("/")):
        ask()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def visit(port: int, count: int) -> set[str]:
    """Ask the web server so often; the ids of the processes that answered."""
    pids = set()
    with httpx.Client(trust_env=False) as client:
        for n in range(count):
            until = time.monotonic() + 60
            while True:
                try:
                    pids.add(client.get(f"http://127.0.0.1:{port}/{n}", timeout=30).raise_for_status().text)
                    break
                except httpx.TransportError:
                    # Not up yet, or the connection of a worker that was just replaced: the app itself did not fail.
                    assert time.monotonic() < until
                    time.sleep(0.05)
    return pids


@pytest.mark.parametrize("preload", [True, False])
def test_gunicorns_workers_that_are_replaced_lose_nothing(
    preload: bool, start: Start, sink: Sink, provider: Loopback, tmp_path: Path
) -> None:
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed")
    write(tmp_path / "web.py", WSGI)
    port = free_port()
    server = start(
        *(sys.executable, "-m", "gunicorn", "-w", "2", "--max-requests", "3", "-b", f"127.0.0.1:{port}", "web"),
        *(["--preload"] if preload else []),
    )
    assert len(visit(port, 16)) > 2
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0, (tmp_path / "out.log").read_text()
    assert len(sink.taken) == len(provider.seen) >= 16
    assert set(sink.taken.values()) == {1}
    assert spooled(tmp_path) == []


@pytest.mark.parametrize("lazy", [True, False])
def test_uwsgis_workers_that_are_replaced_lose_nothing(
    lazy: bool, start: Start, sink: Sink, provider: Loopback, tmp_path: Path
) -> None:
    uwsgi = Path(sys.executable).with_name("uwsgi")
    if not uwsgi.exists():
        pytest.skip("uWSGI is not installed")
    write(tmp_path / "web.py", WSGI)
    port = free_port()
    server = start(
        *(str(uwsgi), "--http", f"127.0.0.1:{port}", "--module", "web", "--master", "--processes", "2"),
        *("--enable-threads", "--max-requests", "3", "--min-worker-lifetime", "0", "--die-on-term", "--need-app"),
        *(["--lazy-apps"] if lazy else []),
        **({"VIRTUAL_ENV": sys.prefix} if sys.prefix != sys.base_prefix else {}),
    )
    assert len(visit(port, 16)) > 2
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    following = "import spendwatch; spendwatch.instrument(); raise SystemExit(not spendwatch.flush(20))"
    assert start(sys.executable, "-c", following).wait(60) == 0, (tmp_path / "out.log").read_text()
    assert len(sink.taken) == len(provider.seen) >= 16
    assert spooled(tmp_path) == []
