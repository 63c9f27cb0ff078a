"""A running OpenRouter on loopback: uvicorn in a thread, on a port of its own."""

import socket
import threading
from typing import Any

import httpx2
import uvicorn

from tests.fakes.openrouter.app import App
from tests.fakes.openrouter.world import MANAGEMENT_KEY, World, key_hash


class OpenRouter:
    """Serves a world until stopped; a context manager. Port 0: a free one."""

    def __init__(self, world: World | None = None, *, port: int = 0) -> None:
        self.world = world or World()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            App(self.world), log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def host(self) -> str:
        """host:port, as SPENDWATCH_HOSTS wants it."""
        return f"127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """OpenRouter's API base."""
        return f"http://{self.host}/api/v1"

    @property
    def direct_url(self) -> str:
        """The base of the direct provider: OpenAI's paths are below /v1 (the OpenAI SDK wants it with /v1)."""
        return f"http://{self.host}"

    @property
    def management_key(self) -> str:
        """The one key with rights on /activity, /credits and /keys."""
        return MANAGEMENT_KEY

    def post(self, path: str, document: dict[str, Any]) -> Any:
        """POST to one of this world's own endpoints; the answer read. Raises on an error status."""
        answer = httpx2.post(self.direct_url + path, json=document, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def name_key(self, secret: str, name: str) -> str:
        """Give a key its name; its hash."""
        self.post("/_keys", {"secret": secret, "name": name})
        return key_hash(secret)

    def start(self) -> "OpenRouter":
        """Begin to serve; the socket listens already, so no client can come too early."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and wait for the thread."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def __enter__(self) -> "OpenRouter":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
