"""`python -m collectors.otlp`: the collector as a process of its own, with the limits that suit it."""

import argparse
import ctypes
import gc
import logging
import resource
import signal
import socket
import sys

import uvicorn

from collectors.otlp.app import app
from collectors.otlp.protocol import BoundedProtocol

CONNECTIONS = 10_000
"""Connections at one time, if the machine lets us: each app process keeps one open. Beyond it uvicorn answers 503 at
once, which exporters take as "later"."""
SPARE_FILES = 100
"""File descriptors for everything else: ClickHouse, the database, the log."""
_M_MMAP_THRESHOLD = -3
STOP_S = 15
"""For requests under way to be committed and answered after SIGTERM."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; what was taken by then is committed and answered first. The exit status."""
    parser = argparse.ArgumentParser(prog="python -m collectors.otlp", description="Spendwatch's OTLP/HTTP endpoint.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=4318, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        sys.stderr.write(
            f"spendwatch ingest: expected to listen on {options.host} port {options.port}, found: {error}. "
            "Stop what listens there, or choose another (SPENDWATCH_INGEST_PORT).\n"
        )
        return 2
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = CONNECTIONS + SPARE_FILES if most == resource.RLIM_INFINITY else min(most, CONNECTIONS + SPARE_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    # uvicorn tells of its start, stop and signals; the log of the server is for what someone should read.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Thousands of calls wait in memory at a time and hold no cycles: a full collection over them stalls everybody
    # for tenths of a second. What is loaded by now stays for good.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    _give_back_large_blocks()
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        loop="uvloop",
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=max(files - SPARE_FILES, 10),
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_S,
    )
    # uvicorn stops in order at these and then sends them to the process once more, which would end it as if killed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _give_back_large_blocks() -> None:
    """Have bodies of megabytes go back to the system once they are stored, where the C library is glibc.

    Left to itself it keeps what was freed, in pieces between smaller things, and grows by hundreds of MB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


if __name__ == "__main__":
    sys.exit(main())
