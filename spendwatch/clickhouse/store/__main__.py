"""The embedded ClickHouse: `python -m spendwatch.clickhouse.store --data DIR --password-file FILE`.

One process owns the data folder and serves ClickHouse's HTTP protocol on a loopback port. It prints one line when it
is ready, stops cleanly on SIGTERM or SIGINT, and leaves with 2 and one line of text when it can't start as asked.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvloop

from spendwatch.clickhouse.store.process import listen, own, write_config
from spendwatch.clickhouse.store.sandbox import confine
from spendwatch.clickhouse.store.users import read_users
from spendwatch.errors import ConfigError

logger = logging.getLogger("spendwatch.store")


def main(arguments: list[str] | None = None) -> int:
    """Run the store until it is told to stop; the exit status of the process."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        _run(options)
    except ConfigError as error:
        sys.stderr.write(f"spendwatch store: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def _run(options: argparse.Namespace) -> None:
    """What a person can get wrong first, then the fence, then the engine."""
    data = options.data.expanduser().resolve()
    users = read_users(options.user, options.password_file, options.users_file)
    with own(data), contextlib.closing(listen(options.bind, options.port)) as listener:
        config = write_config(
            data / "config",
            database=options.database,
            memory_bytes=options.memory_mb << 20,
            fsync=options.durability == "fsync",
        )
        # Relative paths, temporary files and what the engine drops where it stands: all of it inside the folder.
        os.chdir(data)
        temporary = data / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        # The engine takes its time zone from the environment when it is loaded.
        os.environ["TZ"] = "UTC"
        time.tzset()
        if not confine(data):
            logger.warning("this system has no Landlock (Linux 5.19 or newer): the store runs without its outer fence")
        from spendwatch.clickhouse.store.serve import Options, serve  # loads the engine and its threads

        if options.exit_with_parent:
            threading.Thread(target=_end_with_stdin, daemon=True).start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                serve(
                    Options(
                        data=data,
                        database=options.database,
                        concurrent=options.max_concurrent,
                        allow_detached=options.allow_detached,
                    ),
                    listener,
                    users,
                    config,
                )
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spendwatch.clickhouse.store", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the database; made when it is new")
    parser.add_argument("--bind", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8123, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--database", default="spendwatch", help="the one database it serves (default: %(default)s)")
    parser.add_argument("--user", default="spendwatch", help="who may log in (default: %(default)s)")
    parser.add_argument("--password-file", type=Path, required=True, help="a file with that user's password")
    parser.add_argument("--users-file", type=Path, help="more users: name:password or name:password:ro, one a line")
    parser.add_argument("--memory-mb", type=int, default=_memory_mb(), help="the engine's limit (default: %(default)s)")
    parser.add_argument("--max-concurrent", type=int, default=32, help="statements at a time (default: %(default)s)")
    parser.add_argument(
        "--durability",
        choices=("kill", "fsync"),
        default="kill",
        help="kill: an acknowledged row outlives the process; fsync: it also outlives a power cut, at about five times "
        "the cost of an insert (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-detached", action="store_true", help="start although the engine set broken parts aside"
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input closes")
    parser.add_argument("--log-level", default="WARNING", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser


def _memory_mb() -> int:
    """Half of the machine's memory, 4 GiB at most: the rest of the service lives beside it."""
    return min(4096, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 >> 20)


def _end_with_stdin() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
