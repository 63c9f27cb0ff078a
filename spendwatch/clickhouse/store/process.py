"""The store as a process: it alone owns its data folder, and it says plainly why it can't start.

Everything that can be wrong is looked at before the engine opens: the folder, who holds it, the port, the passwords.
Each fault is one ConfigError whose message says what was expected, what was found and what to do.
"""

import fcntl
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from spendwatch.errors import ConfigError

if TYPE_CHECKING:  # the engine is loaded only after the process has been fenced in
    from spendwatch.clickhouse.store.engine import Engine


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Hold the data folder for this process, making it when it is new. Raises ConfigError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"expected a data folder that can be written at {folder}, found: {error.strerror}. "
            "Make it writable for this user, or name another one with --data."
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise ConfigError(
                f"expected the data folder {folder} to be free, found that process {holder or '(unknown)'} is already "
                "serving it. Use that store, or stop it first."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def listen(bind: str, port: int) -> socket.socket:
    """A listening socket on a loopback address; port 0 takes a free one. Raises ConfigError."""
    address = "127.0.0.1" if bind == "localhost" else bind
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"expected a loopback address such as 127.0.0.1, found {bind}. The embedded store speaks plain HTTP to "
            "this machine only; use a ClickHouse server for other machines."
        )
    listener = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    # Head and body of an answer are two writes: without this each answer waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"expected port {port} of {address} to be free, found: {error.strerror}. "
            "Stop what listens there, or choose another port with --port."
        ) from None
    return listener


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def write_config(folder: Path, *, database: str, memory_bytes: int, fsync: bool) -> Path:
    """Write the engine's configuration into the folder; the path of its main file. Raises ConfigError."""
    if not _NAME.fullmatch(database) or database.lower() in ("default", "system", "information_schema"):
        raise ConfigError(
            f"expected a database name of letters, digits and _ that is not the engine's own, found {database!r}. "
            "Choose another one with --database."
        )
    values = {
        "database": database,
        "memory_bytes": str(memory_bytes),
        "fsync": str(int(fsync)),
        "folder": escape(str(folder)),
        "backups": escape(str(folder.parent / "backups")),
    }
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder.parent / "backups").mkdir(mode=0o700, exist_ok=True)
        for name in ("config.xml", "users.xml"):
            template = Template(files(__package__).joinpath(name).read_text())
            (folder / name).write_text(template.substitute(values))
    except OSError as error:
        raise ConfigError(
            f"expected to write the engine's configuration into {folder}, found: {error.strerror}. "
            "Make the data folder writable for this user."
        ) from None
    return folder / "config.xml"


def check_detached(engine: "Engine") -> list[str]:
    """One line for every part the engine set aside because it was broken: their rows are missing from every answer."""
    with engine.lease(engine.database, {}, readonly=True) as link:
        found = link.run(
            "SELECT format('{}.{}: {} ({}, {} bytes in {})', database, table, name, reason, bytes_on_disk, path) "
            "FROM system.detached_parts WHERE reason != '' ORDER BY database, table, name",
            "TSVRaw",
        )
    return [line for line in found.bytes().decode().splitlines() if line]
