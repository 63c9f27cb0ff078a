"""The supervisor over small real processes."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.processes import ROOT, Program, alive, descendants, eventually

WELL = "open(READY, 'w').write(str(os.getpid()))\ntime.sleep(600)"


def supervise(folder: Path, *children: dict[str, Any]) -> Program:
    return Program(
        [sys.executable, "-m", "tests.server.supervise", str(folder), json.dumps(children)], {"PYTHONPATH": str(ROOT)}
    )


def pids(program: Program) -> dict[str, int]:
    return json.loads(program.wait_for(r"^ready (.*)")[1])


def test_children_are_started_and_stopped_together(tmp_path: Path) -> None:
    with supervise(tmp_path, {"name": "one", "code": WELL}, {"name": "two", "code": WELL}) as program:
        children = pids(program)
        assert all(alive(pid) for pid in children.values())
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert not any(alive(pid) for pid in children.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_stop_signal_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with supervise(tmp_path, {"name": "one", "code": WELL}) as program:
        pids(program)
        program.send(number)
        program.wait_for("^stopped$")
        assert program.wait() == 0


def test_a_killed_child_is_started_again_and_announced(tmp_path: Path) -> None:
    with supervise(tmp_path, {"name": "one", "code": WELL}, {"name": "two", "code": WELL}) as program:
        before = pids(program)
        os.kill(before["one"], signal.SIGKILL)
        program.wait_for(r"^one ended \(killed by SIGKILL\); starting it again in 0.5 s")
        program.wait_for(r"^one is back")
        again = int((tmp_path / "one.alive").read_text())
        assert again != before["one"]
        assert alive(again)
        assert alive(before["two"])


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    code = f"import subprocess\nsubprocess.Popen(['sleep', '600'])\n{WELL}"
    with supervise(tmp_path, {"name": "one", "code": WELL}, {"name": "two", "code": code}) as program:
        children = pids(program)
        below = descendants(program.pid)
        assert set(children.values()) < below
        program.send(signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in children.values()), "all children have ended")
        for pid in below - set(children.values()):  # what a child starts by itself is its own to tie
            os.kill(pid, signal.SIGKILL)


def test_what_a_dead_child_had_started_is_ended_before_it_starts_again(tmp_path: Path) -> None:
    code = f"import subprocess\nopen(READY + '.below', 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n{WELL}"
    with supervise(tmp_path, {"name": "one", "code": code}) as program:
        child = pids(program)["one"]
        below = int((tmp_path / "one.alive.below").read_text())
        assert alive(below)
        os.kill(child, signal.SIGKILL)
        program.wait_for("^one ended")
        eventually(lambda: not alive(below), "what it had started has ended")


def test_a_child_that_keeps_failing_is_shown_with_its_last_lines(tmp_path: Path) -> None:
    # Well the first time; afterwards it says why it can't go on.
    code = f"if os.path.exists(READY):\n    print('the disk is on fire', flush=True)\n    raise SystemExit(3)\n{WELL}"
    with supervise(tmp_path, {"name": "one", "code": code}) as program:
        os.kill(pids(program)["one"], signal.SIGKILL)
        waits = [program.wait_for(r"^one ended .* again in (\S+) s")[1] for _ in range(4)]
        assert waits == ["0.5", "1", "2", "4"]
        program.wait_for(r"^one keeps failing: 4 times in a row")
        program.wait_for("the disk is on fire")
        program.wait_for(str(tmp_path / "logs" / "one.log"))
        program.send(signal.SIGTERM)
        assert program.wait() == 0


def test_a_child_that_ends_before_it_is_ready_fails_the_start_and_takes_the_others_along(tmp_path: Path) -> None:
    bad = "print('no such table', flush=True)\nraise SystemExit(7)"
    with supervise(tmp_path, {"name": "one", "code": WELL}, {"name": "two", "code": bad}) as program:
        program.wait_for(r"^failed: two ended before it was ready \(exit code 7\)")
        program.wait_for("no such table")
        assert program.wait() == 2
        first = tmp_path / "one.alive"
        assert not first.exists() or not alive(int(first.read_text()))


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    code = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WELL}"
    with supervise(tmp_path, {"name": "one", "code": code, "stop_after_s": 0.5}) as program:
        child = pids(program)["one"]
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert not alive(child)


def test_a_second_signal_ends_the_waiting(tmp_path: Path) -> None:
    code = f"signal.signal(signal.SIGTERM, lambda *_: open(READY + '.asked', 'w').close())\n{WELL}\ntime.sleep(600)"
    with supervise(tmp_path, {"name": "one", "code": code, "stop_after_s": 600}) as program:
        child = pids(program)["one"]
        program.send(signal.SIGINT)
        eventually((tmp_path / "one.alive.asked").exists, "the child was asked to end")
        program.send(signal.SIGINT)
        assert program.wait() == 0
        assert not alive(child)


def test_the_foundation_is_stopped_last(tmp_path: Path) -> None:
    order = tmp_path / "order"
    ending = "\n".join(
        [
            "def end(*_):",
            f"    open({str(order)!r}, 'a').write(os.path.basename(READY) + ' ')",
            "    raise SystemExit(0)",
            "signal.signal(signal.SIGTERM, end)",
            WELL,
        ]
    )
    children = [{"name": "store", "code": ending, "stage": 0}, {"name": "web", "code": ending, "stage": 1}]
    with supervise(tmp_path, *children) as program:
        pids(program)
        program.send(signal.SIGTERM)
        program.wait()
        assert order.read_text().split() == ["web.alive", "store.alive"]


def test_each_line_a_child_writes_is_in_its_log(tmp_path: Path) -> None:
    with supervise(tmp_path, {"name": "one", "code": f"print('hello from one', flush=True)\n{WELL}"}) as program:
        pids(program)
        log = tmp_path / "logs" / "one.log"
        eventually(lambda: "hello from one" in log.read_text(), "the line is in the log")
