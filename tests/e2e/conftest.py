"""`house`: the whole service as `manage.py up` starts it, on ports and a folder of its own."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from spendwatch.clickhouse.client import connect
from tests.fakes.openrouter import OpenRouter
from tests.server.processes import Program, descendants, eventually, free_ports, manage

PARTS = {
    "store": "spendwatch.clickhouse.store",
    "ingest": "collectors.otlp",
    "web": "granian",
    "worker": "celery -A server worker",
}


@dataclass(frozen=True)
class House:
    """A running service, seen from outside."""

    program: Program
    environment: dict[str, str]
    base_url: str
    ingest_url: str
    dsn: str
    password: str
    token: str

    def app(self, openrouter: OpenRouter, *arguments: str, spool: Path) -> Program:
        """An instrumented app that calls this OpenRouter."""
        return Program(
            [sys.executable, "-m", "tests.e2e.app", openrouter.base_url, *arguments],
            {
                "SPENDWATCH_ENDPOINT": self.ingest_url,
                "SPENDWATCH_TOKEN": self.token,
                "SPENDWATCH_SPOOL_DIR": str(spool),
                "SPENDWATCH_HOSTS": f"{openrouter.host}=openrouter",
            },
        )

    def manage(self, *arguments: str) -> str:
        """Run a management command of this service to its end; what it wrote."""
        with manage(*arguments, **self.environment) as program:
            code = program.wait()
            output = "".join(program.output)
            assert code == 0, output
            return output

    def kill(self, part: str) -> None:
        """End one of its processes with -9, and wait until it is back."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        self.program.wait_for(f"{part} is back")

    def pid(self, part: str) -> int:
        """The process id of one of its parts."""
        for pid in sorted(descendants(self.program.pid)):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if PARTS[part] in command:
                return pid
        raise AssertionError(f"no process runs {PARTS[part]!r}")

    def stored(self) -> list[tuple[str, Decimal]]:
        """Response id and reported cost of every stored call, as any ClickHouse client reads them."""
        with connect(self.dsn, caller="tests") as ch:
            rows = ch.query("stored", "SELECT response_id, effective_cost FROM llm_calls FINAL")
            return [(str(row[0]), row[1]) for row in rows]

    @contextmanager
    def browser(self) -> Iterator[httpx2.Client]:
        """A client that is logged in as the administrator."""
        with httpx2.Client(base_url=self.base_url, follow_redirects=True, timeout=30) as client:
            form = client.get("/admin/login/")
            csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
            assert csrf is not None
            answer = client.post(
                "/admin/login/?next=/admin/",
                data={"username": "admin", "password": self.password, "csrfmiddlewaretoken": csrf.group(1)},
                headers={"Referer": f"{self.base_url}/admin/login/"},
            )
            assert 'data-testid="start"' in answer.text
            yield client


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Started once for the tests of a module, stopped as a person would."""
    web, ingest, store = free_ports(3)
    data = tmp_path_factory.mktemp("house")
    environment = {
        "SPENDWATCH_DATA_DIR": str(data),
        "SPENDWATCH_WEB_PORT": str(web),
        "SPENDWATCH_INGEST_PORT": str(ingest),
        "SPENDWATCH_STORE_PORT": str(store),
    }
    with manage("up", **environment) as program:
        password = program.wait_for(r"^\s+password\s+(\S+)$").group(1)
        token = program.wait_for(r"SPENDWATCH_TOKEN=(\S+)").group(1)
        program.wait_for("Spendwatch is ready")
        secret = (data / "secrets" / "store_password").read_text().strip()
        yield House(
            program=program,
            environment=environment,
            base_url=f"http://127.0.0.1:{web}",
            ingest_url=f"http://127.0.0.1:{ingest}",
            dsn=f"http://spendwatch:{secret}@127.0.0.1:{store}/spendwatch",
            password=password,
            token=token,
        )
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        eventually(lambda: not descendants(program.pid), "every process has ended")
