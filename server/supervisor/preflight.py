"""What must hold before anything is started: a data folder of our own to write in, and free ports.

Everything that does not hold is said in one ConfigError. Never here: other systems, which are asked when they are first
needed.
"""

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from server.env import Env
from spendwatch.errors import ConfigError


@contextlib.contextmanager
def sole_use(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process. Raises ConfigError when it can't be written or another one holds it.

    The lock ends with this process, however it ends.
    """
    run = data_dir / "run"
    try:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
        handle = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"expected to keep data in {data_dir}, found: {error.strerror}. Make the folder writable for this user, or "
            "set SPENDWATCH_DATA_DIR to one that is."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise ConfigError(f"expected to lock {run / 'lock'}, found: {error.strerror}.") from error
            holder = os.read(handle, 32).decode().strip() or "unknown"
            raise ConfigError(
                f"another instance (process {holder}) already runs on the data in {data_dir}. Stop that one, or give "
                "this one a folder of its own with SPENDWATCH_DATA_DIR and ports of its own."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def ports_of(env: Env) -> dict[str, tuple[str, int]]:
    """Option name -> address, for each port that our processes will listen on."""
    ports = {"web": (env.bind, env.web_port), "ingest": (env.bind, env.ingest_port)}
    if env.embedded_store:
        ports["store"] = ("127.0.0.1", env.store_port)
    return ports


def check_ports(ports: Mapping[str, tuple[str, int]]) -> None:
    """Raise ConfigError that names every port that is taken or can't be listened on."""
    wrong = []
    by_port: dict[int, str] = {}
    for name, (host, port) in ports.items():
        how = f"Choose another with --{name}-port or SPENDWATCH_{name.upper()}_PORT."
        if port in by_port:
            wrong.append(f"{name} and {by_port[port]} are both to listen on port {port}. {how}")
            continue
        by_port[port] = name
        reason = _taken(host, port)
        if reason is not None:
            wrong.append(f"expected port {port} on {host} to be free for {name}, found: {reason}. {how}")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _taken(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do: a port whose last connections are still closing down counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return "it is in use by another program" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
    return None
