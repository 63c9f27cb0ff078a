"""Starts children, watches them, restarts the dead with growing pauses, stops them all.

Used from the main thread: signals arrive there, and the kernel ties a child to the thread that started it. As a context
manager it takes over SIGINT, SIGTERM and SIGHUP, and on the way out stops what it started, whatever went wrong inside.
Never here: what the children are.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType, TracebackType
from typing import Any, Self

from server.supervisor.child import Child, Life, tethered
from spendwatch.errors import SpendwatchError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0
"""A child that lived this long starts again with the first pause."""
KEEPS_FAILING = 4
"""After this many deaths in a row the last lines of its log are shown."""
LOOK_AGAIN_S = 0.1
IDLE_S = 10.0


class StartError(SpendwatchError):
    """A process could not be started, or ended before it was ready."""


class Stopped(SpendwatchError):  # noqa: N818  # not a fault: somebody asked
    """A signal asked the supervisor to stop."""


@dataclass(slots=True)
class _Post:
    """A child's place: its present life, or when the next one begins."""

    child: Child
    life: Life | None = None
    deaths: int = 0
    next_start: float = 0.0
    restarted: bool = False


class Supervisor:
    """See the module. `say` gets what a person should know, line by line; `echo` each line the children write."""

    def __init__(
        self,
        *,
        logs: Path,
        directory: Path,
        say: Callable[[str], None],
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self._logs = logs
        self._directory = directory
        self._say = say
        self._echo = echo
        self._posts: dict[str, _Post] = {}
        self._signals = 0
        self._handlers: dict[int, Any] = {}
        self._wake: tuple[int, int] | None = None
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        read, write = os.pipe()
        for end in (read, write):
            os.set_blocking(end, False)
        self._wake = (read, write)
        self._wakeup_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._asked_to_stop)
        # A handler of its own makes the end of a child interrupt the wait below.
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            signal.set_wakeup_fd(self._wakeup_before)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            for end in self._wake or ():
                os.close(end)
            self._wake = None

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each child that lives now."""
        return {name: post.life.pid for name, post in self._posts.items() if post.life is not None}

    def start(self, child: Child) -> None:
        """Start a child; wait_ready waits for it."""
        post = self._posts[child.name] = _Post(child)
        self._begin(post)

    def step(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a command to its end and return its standard output; the children are watched meanwhile.

        Raises StartError with what it wrote when it fails, or when a child dies first; Stopped on a signal.
        """
        with subprocess.Popen(
            tethered(argv),
            env={**os.environ, **environment},
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                while True:
                    try:
                        out, err = process.communicate(timeout=LOOK_AGAIN_S)
                        break
                    except subprocess.TimeoutExpired:
                        self.none_died()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        (self._logs / f"{name}.log").write_text(err)
        if process.returncode != 0:
            said = err.strip().removeprefix("spendwatch: ")
            raise StartError(said or f"{name} failed with exit code {process.returncode} and said nothing.")
        return out

    def wait_ready(self, *, timeout_s: float = 90.0) -> None:
        """Wait until every started child is ready. Raises StartError when one ends or is not in time, Stopped on a
        signal."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.none_died()
            missing = [reason for post in self._posts.values() if (reason := self._missing(post)) is not None]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise StartError(
                    f"expected every process to be ready within {timeout_s:.0f} s, found: {'; '.join(missing)}. "
                    f"The logs in {self._logs} say more."
                )
            self._sleep(LOOK_AGAIN_S)

    def run(self, until: Event | None = None) -> None:
        """Keep the children alive until a signal asks to stop, or `until` is set."""
        while not self._signals and not (until is not None and until.is_set()):
            busy = [post for post in self._posts.values() if not self._look_after(post)]
            self._sleep(LOOK_AGAIN_S if busy or until is not None else IDLE_S)

    def stop(self) -> None:
        """End every child: those of the highest stage first, each with a chance to finish. A second signal ends the
        waiting."""
        first = self._signals
        for stage in sorted({post.child.stage for post in self._posts.values()}, reverse=True):
            lives = [post.life for post in self._posts.values() if post.child.stage == stage and post.life is not None]
            self._end(lives, first)
        self._posts.clear()

    def end(self, name: str) -> None:
        """End one child, with its chance to finish, and forget it."""
        post = self._posts.pop(name)
        if post.life is not None:
            self._end([post.life], self._signals)

    def _end(self, lives: Sequence[Life], signals_before: int) -> None:
        for life in lives:
            life.terminate()
        deadline = time.monotonic() + max((life.child.stop_after_s for life in lives), default=0)
        while any(life.ended() is None for life in lives) and time.monotonic() < deadline:
            if self._signals > signals_before:
                break
            self._sleep(LOOK_AGAIN_S)
        for life in lives:
            life.kill()

    def _asked_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _begin(self, post: _Post) -> None:
        try:
            post.life = Life(post.child, logs=self._logs, directory=self._directory, echo=self._echo)
        except OSError as error:
            raise StartError(f"{post.child.name} can't be started: {error}.") from error

    def none_died(self) -> None:
        """During the start nothing is restarted: a child that ends then has something to say.

        Raises StartError with its last words when one ended, Stopped when a signal asked to stop.
        """
        if self._signals:
            raise Stopped("asked to stop")
        for post in self._posts.values():
            if post.life is not None and (how := post.life.ended()) is not None:
                post.life.kill()
                raise StartError(
                    f"{post.child.name} ended before it was ready ({how}). Its last lines:\n{post.life.last_lines()}\n"
                    f"The whole log: {post.life.log_file}"
                )

    def _missing(self, post: _Post) -> str | None:
        if post.life is None:
            return f"{post.child.name} is not running"
        if not post.life.is_ready:
            reason = post.child.ready(post.life.pid)
            if reason is not None:
                return f"{post.child.name}: {reason}"
            post.life.is_ready = True
        return None

    def _look_after(self, post: _Post) -> bool:
        """One look at a child; True when it is well and needs no further look soon."""
        now = time.monotonic()
        if post.life is None:
            if now < post.next_start:
                return False
            try:
                self._begin(post)
            except StartError as error:
                post.deaths += 1
                post.next_start = now + LONGEST_PAUSE_S
                self._say(f"{error} Trying again in {LONGEST_PAUSE_S:g} s.")
            return False
        how = post.life.ended()
        if how is not None:
            self._bury(post, post.life, how, now)
            return False
        if self._missing(post) is not None:
            return False
        if post.restarted:
            post.restarted = False
            self._say(f"{post.child.name} is back.")
        return True

    def _bury(self, post: _Post, life: Life, how: str, now: float) -> None:
        life.kill()
        post.deaths = 1 if now - life.started >= SETTLED_S else post.deaths + 1
        pause = min(FIRST_PAUSE_S * 2 ** (post.deaths - 1), LONGEST_PAUSE_S)
        post.life, post.next_start, post.restarted = None, now + pause, True
        self._say(f"{post.child.name} ended ({how}); starting it again in {pause:g} s.")
        if post.deaths == KEEPS_FAILING:
            self._say(
                f"{post.child.name} keeps failing: {post.deaths} times in a row. Its last lines:\n{life.last_lines()}\n"
                f"The whole log: {life.log_file}"
            )

    def _sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the next signal (the end of a child is one)."""
        if self._wake is None:
            time.sleep(seconds)
            return
        readable, _, _ = select.select([self._wake[0]], [], [], seconds)
        if readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
