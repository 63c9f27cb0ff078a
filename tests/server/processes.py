"""Real processes under test: started in a session of their own, read line by line, never left behind."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90.0
"""How long a test waits for what must happen; only a failing test waits this long."""


class Program:
    """A running command whose output the test reads."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line not read yet that matches; fails with all output when the program ends before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line matches {pattern!r} in:\n{''.join(self.output)}") from None
            if line is None:
                raise AssertionError(f"ended before a line matched {pattern!r}:\n{''.join(self.output)}")
            found = re.search(pattern, line)
            if found is not None:
                return found

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended and everything it wrote is in `output`."""
        code = self._process.wait(PATIENCE_S)
        while self._lines.get(timeout=PATIENCE_S) is not None:
            pass
        return code

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                self.output.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE_S)


def manage(*arguments: str, **environment: str) -> Program:
    """A manage.py command as its own process."""
    return Program([sys.executable, "manage.py", *arguments], environment)


def alive(pid: int) -> bool:
    """Whether the process exists and is not just waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until it is so; fail saying what is not."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. All are held at once, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def descendants(pid: int) -> set[int]:
    """Every process below this one."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        try:
            text = Path(f"/proc/{waiting[-1]}/task/{waiting.pop()}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children = {int(word) for word in text.split()} - found
        found |= children
        waiting += children
    return found
