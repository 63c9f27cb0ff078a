"""The processes around the service: an OpenRouter, a Slack, and Larkfield's app."""

import contextlib
import json
import queue
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from server.env import Env
from server.supervisor import Child
from server.supervisor.ready import answers

COMPANY = "larkfield"
SLACK_CHANNEL = "C0SPEND"
MANAGEMENT_KEY = "sk-or-v1-management"
"""The one key with which the OpenRouter on loopback shows its statements."""
HISTORY_DAYS = 14


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class World:
    """Where the company's surroundings are, and what its app says of itself."""

    def __init__(self) -> None:
        self._openrouter_port = free_port()
        self._slack_port = free_port()
        self.slack_url = f"http://127.0.0.1:{self._slack_port}"
        self.openrouter_url = f"http://127.0.0.1:{self._openrouter_port}/api/v1"
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()

    def hear(self, line: str) -> None:
        """Take up what the app says, out of all the lines that the processes write."""
        name, _, text = line.partition(" | ")
        if name.strip() == COMPANY and text.startswith("{"):
            self.events.put(json.loads(text))

    def surroundings(self) -> list[Child]:
        """OpenRouter and Slack."""
        return [
            Child(
                name="openrouter",
                argv=[sys.executable, "-m", "tests.fakes.openrouter", "--port", str(self._openrouter_port)],
                ready=answers("127.0.0.1", self._openrouter_port, "/api/v1/models"),
            ),
            Child(
                name="slack",
                argv=[sys.executable, "-m", "tests.fakes.slack", "--port", str(self._slack_port)],
                ready=answers("127.0.0.1", self._slack_port, "/_messages"),
            ),
        ]

    def company(self, env: Env, token: str) -> Child:
        """Larkfield's app: it knows where to send its spans, and which host is which provider."""
        started: Callable[[int], str | None] = lambda _pid: None  # noqa: E731
        return Child(
            name=COMPANY,
            argv=[
                *(sys.executable, "-m", "tests.fakes.company", "--openrouter", self.openrouter_url),
                *("--history-days", str(HISTORY_DAYS)),
            ],
            ready=started,
            stage=2,
            environment={
                "SPENDWATCH_ENDPOINT": env.ingest_url,
                "SPENDWATCH_TOKEN": token,
                "SPENDWATCH_SERVICE": "larkfield-app",
                "SPENDWATCH_SPOOL_DIR": str(env.data_dir / "spool"),
                "SPENDWATCH_HOSTS": (
                    f"127.0.0.1:{self._openrouter_port}=openrouter,localhost:{self._openrouter_port}=anthropic"
                ),
            },
        )

    def messages(self) -> list[dict[str, Any]]:
        """Everything that was posted to Slack."""
        found: list[dict[str, Any]] = read(f"{self.slack_url}/_messages")
        return found

    def generations(self) -> list[dict[str, Any]]:
        """Everything OpenRouter served, with what its replies said and what it bills."""
        found: list[dict[str, Any]] = read(f"{self._own('_generations')}")["data"]
        return found

    def let_generations_land(self) -> None:
        """OpenRouter answers 404 to whoever asks first for a generation; be the first, for those it cut short."""
        for one in self.generations():
            if one["cancelled"]:
                with contextlib.suppress(urllib.error.HTTPError):
                    read(f"{self.openrouter_url}/generation?id={one['id']}", key=MANAGEMENT_KEY)

    def plant(self, wish: Mapping[str, object]) -> dict[str, Any]:
        """Make OpenRouter's statement differ from its replies; where, in which class and by how much."""
        found: dict[str, Any] = read(self._own("_plant"), wish)
        return found

    def _own(self, path: str) -> str:
        return f"http://127.0.0.1:{self._openrouter_port}/{path}"


def read(url: str, document: Mapping[str, object] | None = None, *, key: str | None = None) -> Any:
    """GET, or POST a document; the JSON answer with exact decimals."""
    body = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # addresses of our own, on loopback
        return json.loads(answer.read(), parse_float=Decimal)
