"""From a data folder to a served port and back: open, announce, serve, stop.

The port is held before the engine opens but answers only after; when told to stop, what runs is finished before the
engine closes.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from spendwatch.clickhouse.store.app import App, Limits
from spendwatch.clickhouse.store.engine import Engine
from spendwatch.clickhouse.store.errors import Refusal
from spendwatch.clickhouse.store.process import check_detached
from spendwatch.clickhouse.store.users import User
from spendwatch.errors import ConfigError

logger = logging.getLogger("spendwatch.store")

_STOP_S = 30
_READS_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to serve. data: the folder of this store; concurrent: statements at a time."""

    data: Path
    database: str
    concurrent: int
    allow_detached: bool


class _Server(uvicorn.Server):
    """uvicorn, which says on standard output when it answers, and stops statements that only read on the way out."""

    def __init__(self, config: uvicorn.Config, app: App, ready: str) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then the ready line."""
        await super().startup(sockets)
        sys.stdout.write(self._ready + "\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's: what runs is finished. But statements that only read are stopped after a few seconds."""
        stop_reads = asyncio.create_task(self._stop_reads())
        try:
            await super().shutdown(sockets)
        finally:
            stop_reads.cancel()

    async def _stop_reads(self) -> None:
        while True:
            await asyncio.sleep(_READS_S)
            await self._app.kill_reads()


def _noted(number: int, frame: FrameType | None) -> None:
    """A signal that has been acted on already."""


class _Quiet(logging.Filter):
    """Drops uvicorn's complaint about an answer without an end: that is how a failure in the middle looks by intent."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in record.getMessage()


async def serve(options: Options, listener: socket.socket, users: Mapping[str, User], config: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when the engine can't serve this folder."""
    try:
        engine = Engine(options.data / "clickhouse", config, options.database)
    except Refusal as error:
        raise ConfigError(
            f"expected a ClickHouse folder at {options.data / 'clickhouse'}, found: {error.text}. "
            "Restore it from a backup, or name another folder with --data."
        ) from None
    with engine:
        detached = check_detached(engine)
        if detached and not options.allow_detached:
            raise ConfigError(
                "expected every part of the database to be whole, found parts that the engine set aside, so their rows "
                f"are missing from every sum: {'; '.join(detached)}. Restore them from a backup, or start with "
                "--allow-detached to go on without them."
            )
        for line in detached:
            logger.error("rows are missing: the engine set a broken part aside: %s", line)
        app = App(engine, users, Limits(concurrent=options.concurrent))
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        logging.getLogger("uvicorn.error").addFilter(_Quiet())
        server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_STOP_S,
            ),
            app,
            f"spendwatch store ready: http://{shown}:{port}/{options.database} (data: {options.data})",
        )
        # uvicorn stops on these signals, then raises them again for whoever handled them before. By default that would
        # end the process on the spot, with the engine open.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted)
        try:
            await server.serve(sockets=[listener])
        finally:
            await asyncio.to_thread(app.close)
