"""Disks that are full or can't be written, and many processes on one folder: nothing is lost while memory holds."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.conftest import Run
from tests.sdk.sink import Post, Say, Sink
from tests.sdk.test_processes import free_port


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"can't mount a small file system here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("full", ["from the start", "in the midst"])
def test_a_full_disk_loses_nothing_while_the_process_lives(full: str, run: Run, small_disk: Path) -> None:
    if full == "from the start":
        (small_disk / "ballast").write_bytes(b"\0" * (1 << 20))
    port = free_port()
    program = """
    spendwatch.instrument()
    call(150)
    ballast = os.path.join(os.environ["SPENDWATCH_SPOOL_DIR"], "..", "ballast")
    try:
        with open(ballast, "ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    call(150)
    print("made", flush=True)
    sys.stdin.readline()
    print(spendwatch.flush(30))
    """
    process = run(program, f"http://127.0.0.1:{port}", SPENDWATCH_SPOOL_DIR=str(small_disk / "spool"))
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    with Sink(port) as sink:
        out, err = process.communicate("go\n", timeout=90)
        assert (out, process.returncode) == ("True\n", 0), err
        assert len(sink.taken) == 300
        assert set(sink.taken.values()) == {1}
    assert err.count("SPENDWATCH_SPOOL_DIR") == 1, err


def test_a_disk_that_is_mounted_read_only_leaves_memory_and_is_said_once(
    run: Run, sink: Sink, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    program = "spendwatch.instrument(); call(20); print(spendwatch.flush(20))"
    process = run(program, sink.url, SPENDWATCH_SPOOL_DIR=str(small_disk / "spool"))
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("True\n", 0), err
    assert len(sink.taken) == 20
    assert err.count("SPENDWATCH_SPOOL_DIR") == 1


def test_ten_processes_on_one_folder_lose_and_double_nothing(run: Run, tmp_path: Path) -> None:
    port = free_port()
    # Some are killed with calls on disk, some go on, and all look for what others left at the same time.
    program = """
    spendwatch.instrument()
    call(4)
    print("made", flush=True)
    sys.stdin.readline()
    if os.environ["TEST_ENDS"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    call(2)
    print(spendwatch.flush(60), flush=True)
    """
    endings = ["killed", "lives"] * 5
    processes = [run(program, f"http://127.0.0.1:{port}", TEST_ENDS=ending) for ending in endings]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
    with Sink(port) as sink:
        # It stumbles at first, so that the order of things is any.
        sink.say = lambda post: Say(status=429) if len(sink.posts) % 3 == 0 else Say()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process, ending in zip(processes, endings, strict=True):
            out, err = process.communicate(timeout=90)
            assert out == ("" if ending == "killed" else "True\n"), err
        last = run("spendwatch.instrument(); print(spendwatch.flush(30))", f"http://127.0.0.1:{port}")
        assert last.communicate(timeout=60)[0] == "True\n"
        assert len(sink.taken) == 10 * 4 + 5 * 2
        assert set(sink.taken.values()) == {1}
    assert list((tmp_path / "spool").rglob("*.spool")) == []


@pytest.mark.parametrize("kind", ["slow", "413", "429", "500", "garbage"])
def test_a_server_that_answers_badly_and_then_well_gets_each_call(kind: str, run: Run, sink: Sink) -> None:
    answers = {
        "slow": Say(),
        "413": Say(status=413),
        "429": Say(status=429, headers={"retry-after": "0"}),
        "500": Say(status=500),
        "garbage": Say(status=200, headers={"content-type": "text/html"}),
    }

    def say(post: Post) -> Say:
        early = len(post.spans) > 2 if kind == "413" else len(sink.posts) < 2
        return answers[kind] if early else Say()

    if kind == "slow":
        import time

        def slow(post: Post) -> Say:
            time.sleep(0.5)
            return Say()

        sink.say = slow
    else:
        sink.say = say
    program = "spendwatch.instrument(); call(9); print(spendwatch.flush(30))"
    out, err = run(program, sink.url).communicate(timeout=90)
    assert out == "True\n", err
    assert len(sink.taken) == 9
    if kind != "garbage":  # that one's answers count as taken here, though they are a web page
        assert set(sink.taken.values()) == {1}
