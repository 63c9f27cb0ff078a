"""What the SDK's tests share: a clean environment, an OTLP receiver, and processes that call LLMs."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import spendwatch
from spendwatch.hooks import guard
from tests.hooks.loopback import Loopback
from tests.hooks.replies import CHAT_BODY
from tests.sdk.sink import Sink

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("SPENDWATCH_") and name != "SPENDWATCH_DATA_DIR"]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPENDWATCH_SPOOL_DIR", str(tmp_path / "spool"))
    guard.faults.clear()
    yield
    spendwatch.uninstrument()
    assert not guard.faults


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as receiver:
        yield receiver


@pytest.fixture
def provider() -> Iterator[Loopback]:
    with Loopback() as server:
        server.always(CHAT_BODY, framing="length")
        yield server


PROLOGUE = """
import os, sys, time, signal
import httpx, spendwatch
URL = os.environ["TEST_PROVIDER"] + "/v1/chat/completions"
def call(n=1, client=None):
    with httpx.Client() as client:
        for _ in range(n):
            client.post(URL, json={"model": "gpt-4o-mini", "messages": []}).raise_for_status()
"""


@pytest.fixture
def run(provider: Loopback, tmp_path: Path) -> Iterator[Run]:
    """Start a Python process with a spool below tmp_path. Its program has `call(n)`; endpoint is its receiver."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, endpoint: str, *, python: str = sys.executable, **env: str) -> "subprocess.Popen[str]":
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SPENDWATCH_", "OTEL_", "PYTEST_"))}
        process = subprocess.Popen(
            [python, "-c", PROLOGUE + textwrap.dedent(program)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **clean,
                "SPENDWATCH_ENDPOINT": endpoint,
                "SPENDWATCH_SPOOL_DIR": str(tmp_path / "spool"),
                "SPENDWATCH_STRICT": "1",
                "TEST_PROVIDER": provider.url,
                "NO_PROXY": "*",
                **env,
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
