"""`python -m collectors.otlp`: the collector as a process of its own, with the limits that suit it."""

import argparse
import gc
import logging

import uvicorn

from collectors.otlp.app import app
from collectors.otlp.protocol import BoundedProtocol

CONNECTIONS = 1000
"""Connections and requests at one time; beyond it uvicorn answers 503 at once, which exporters take as "later"."""
STOP_S = 15
"""For requests under way to be committed and answered after SIGTERM."""


def main() -> None:
    """Serve until SIGTERM or SIGINT; what was taken by then is committed and answered first."""
    parser = argparse.ArgumentParser(prog="python -m collectors.otlp", description="Spendwatch's OTLP/HTTP endpoint.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=4318, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    # uvicorn tells of its start, stop and signals; the log of the server is for what someone should read.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Thousands of calls wait in memory at a time and hold no cycles: a full collection over them stalls everybody
    # for tenths of a second. What is loaded by now stays for good.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        http=BoundedProtocol,
        loop="uvloop",
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_S,
    )


if __name__ == "__main__":
    main()
