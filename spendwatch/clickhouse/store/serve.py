"""From a data folder to a served port and back: open, announce, serve, stop.

The order matters. What a person can get wrong is checked first; the port is held before the engine opens but answers
only after; when told to stop, what runs is finished before the engine closes.
"""

import asyncio
import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from spendwatch.clickhouse.store.app import App, Limits
from spendwatch.clickhouse.store.engine import Engine
from spendwatch.clickhouse.store.errors import Refusal
from spendwatch.clickhouse.store.process import check_detached, listen, own, write_config
from spendwatch.clickhouse.store.users import read_users
from spendwatch.errors import ConfigError

logger = logging.getLogger("spendwatch.store")

_STOP_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run the store. memory_bytes: what the engine may use; concurrent: statements at a time."""

    data: Path
    bind: str
    port: int
    database: str
    user: str
    password_file: Path
    users_file: Path | None
    memory_bytes: int
    concurrent: int
    fsync: bool
    allow_detached: bool


class _Server(uvicorn.Server):
    """uvicorn, which tells its parent by one line on standard output when it answers."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: "list[object] | None" = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        sys.stdout.write(self._ready + "\n")
        sys.stdout.flush()


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when it can't start as asked."""
    users = read_users(options.user, options.password_file, options.users_file)
    with own(options.data), contextlib.closing(listen(options.bind, options.port)) as listener:
        config = write_config(
            options.data / "config", database=options.database, memory_bytes=options.memory_bytes, fsync=options.fsync
        )
        # The engine resolves relative paths, and drops caches of its own, where the process stands.
        os.chdir(options.data)
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
                    "expected every part of the database to be whole, found parts that the engine set aside, so their "
                    f"rows are missing from every sum: {'; '.join(detached)}. Restore them from a backup, or start "
                    "with --allow-detached to go on without them."
                )
            for line in detached:
                logger.error("rows are missing: the engine set a broken part aside: %s", line)
            app = App(engine, users, Limits(concurrent=options.concurrent))
            host, port = listener.getsockname()[:2]
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
                f"spendwatch store ready: http://{host}:{port}/{options.database} (data: {options.data})",
            )
            try:
                await server.serve(sockets=[listener])
            finally:
                await asyncio.to_thread(app.close)
