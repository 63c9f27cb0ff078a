"""Ways to see that a process does its work: an address that answers 200, a heartbeat file that holds its id."""

import http.client
from collections.abc import Callable
from pathlib import Path


def answers(host: str, port: int, path: str) -> Callable[[int], str | None]:
    """Ready once GET path answers 200; until then, what it answered."""

    def ready(_pid: int) -> str | None:
        link = http.client.HTTPConnection(host, port, timeout=5)
        try:
            link.request("GET", path)
            reply = link.getresponse()
            body = reply.read(500).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on {host}:{port} ({error})"
        finally:
            link.close()
        return None if reply.status == 200 else f"{host}:{port}{path} answers {reply.status}: {body}"

    return ready


def beats(file: Path) -> Callable[[int], str | None]:
    """Ready once the heartbeat file holds the process's id."""

    def ready(pid: int) -> str | None:
        try:
            found = file.read_text().strip()
        except OSError:
            found = ""
        return None if found == str(pid) else f"no heartbeat in {file} yet"

    return ready
