"""A process under supervision: what it is (Child), and one life of it (Life).

A life's output goes line by line to a log file of bounded size and, when asked for, to the terminal under the child's
name; its last lines are kept for the moment it fails. Never here: when to start or restart.
"""

import contextlib
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")
LOG_BYTES = 10_000_000
"""A child's log file grows to this; one older file is kept beside it."""
TAIL_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What a process is.

    ready: given its process id, returns None once it does its work, else what is still missing; called often, so it
    answers within a second or so. stage: children of a higher stage are stopped before those of a lower one.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[int], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    stage: int = 1
    stop_after_s: float = 5.0
    """How long it may take to end after SIGTERM before it is killed."""


class Life:
    """One run of a child's command, in a session of its own: a Ctrl-C at the terminal reaches only the supervisor."""

    def __init__(self, child: Child, *, logs: Path, directory: Path, echo: Callable[[str], None] | None) -> None:
        self.child = child
        self.log_file = logs / f"{child.name}.log"
        self.started = time.monotonic()
        self.is_ready = False
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._echo = echo
        self._process = subprocess.Popen(
            tethered(child.argv),
            env={**os.environ, **child.environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log of {child.name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> str | None:
        """None while it runs, else how it ended ("exit code 1", "killed by SIGKILL")."""
        code = self._process.poll()
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever it started, now; afterwards its output is complete."""
        # Its session is its own process group: a worker process that outlived its master is in it too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=2)

    def last_lines(self) -> str:
        """The last lines it wrote, indented; one line that says so when it wrote nothing."""
        return "\n".join(f"    {line}" for line in self._tail) or "    (it wrote nothing)"

    def _read(self) -> None:
        stdout = self._process.stdout
        if stdout is None:
            raise RuntimeError("a life without a pipe")
        handler = logging.handlers.RotatingFileHandler(self.log_file, maxBytes=LOG_BYTES, backupCount=1)
        try:
            with stdout:
                for raw in stdout:
                    line = raw.decode("utf-8", "replace").rstrip()
                    self._tail.append(line)
                    handler.emit(logging.makeLogRecord({"msg": line}))
                    if self._echo is not None:
                        self._echo(f"{self.child.name:>7} | {line}")
        finally:
            handler.close()


def tethered(argv: Sequence[str]) -> list[str]:
    """The command line that runs argv so that it dies with this process."""
    return [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *argv]
