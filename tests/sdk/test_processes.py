"""However a process ends, each call it finished reaches the server: real processes, a real receiver, no patches."""

import socket
import time
from pathlib import Path

import pytest

from tests.sdk.conftest import Run
from tests.sdk.sink import Post, Say, Sink


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def nobody() -> str:
    """An address that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


ENDINGS = {
    "returns": "",
    "raises": "raise SystemExit(3)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "leaves by os._exit": "os._exit(0)",
    "execs another program": "os.execv('/bin/true', ['true'])",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_process_recorded_during_an_outage_is_sent_by_the_next_one(ending: str, run: Run) -> None:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    first = run(f"spendwatch.instrument(service='first'); call(7); {ENDINGS[ending]}", endpoint)
    out, err = first.communicate(timeout=60)
    with Sink(port) as sink:
        second = run("spendwatch.instrument(service='second'); call(1); print(spendwatch.flush())", endpoint)
        out, err = second.communicate(timeout=60)
        assert (out, second.returncode) == ("True\n", 0), err
        assert len(sink.taken) == 8
        assert set(sink.taken.values()) == {1}
        # The first one's calls carry the first one's name.
        assert sorted(set(sink.services)) == ["first", "second"]


def test_a_process_that_ends_sends_what_it_has(run: Run, sink: Sink) -> None:
    process = run("spendwatch.instrument(); call(3)", sink.url)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(sink.taken) == 3
    assert err == ""


def test_a_process_that_is_killed_in_the_midst_of_calls_loses_none_that_it_finished(run: Run, sink: Sink) -> None:
    program = """
    spendwatch.instrument()
    for n in range(10_000):
        call()
        print(n, flush=True)
    """
    process = run(program, sink.url)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60:
            break
    process.kill()
    finished = 61 + sum(1 for _ in process.stdout)
    second = run("spendwatch.instrument(); print(spendwatch.flush())", sink.url)
    out, err = second.communicate(timeout=60)
    assert out == "True\n", err
    # One more may have been recorded that it had no time to print.
    assert finished <= len(sink.taken) <= finished + 1


def test_an_outage_of_the_server_loses_and_doubles_nothing(run: Run) -> None:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    program = """
    spendwatch.instrument()
    for line in sys.stdin:
        call(int(line))
        print("done", flush=True)
    print(spendwatch.flush(20), flush=True)
    """
    process = run(program, endpoint)
    assert process.stdin is not None
    assert process.stdout is not None

    def make(count: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    with Sink(port) as sink:
        make(5)
        sink.wait_for(5)
    make(40)
    with Sink(port) as again:
        again.say = lambda post: Say(status=503, headers={"retry-after": "0"}) if len(again.posts) < 2 else Say()
        make(5)
        process.stdin.write("0\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        out, err = process.communicate(timeout=60)
        assert out == "True\n", err
        assert len(again.taken) == 45
        assert set(again.taken.values()) == {1}
        assert not set(sink.taken) & set(again.taken)


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_the_end_of_a_process_waits_only_briefly_for_a_server_that_is_away(kind: str, run: Run, sink: Sink) -> None:
    sink.say = lambda post: Say(hang_s=60)
    endpoint = nobody() if kind == "refuses" else sink.url
    program = """
    import atexit
    atexit.register(lambda: print(time.monotonic() - left))
    spendwatch.instrument()
    call(3)
    left = time.monotonic()
    """
    process = run(program, endpoint)
    # atexit runs last in, first out: what the test registered comes after ours, so the time covers all of ours.
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert float(out) < 20  # the server would keep it for 60


def test_a_forked_child_sends_its_own_calls_and_none_of_its_parents(run: Run, sink: Sink) -> None:
    program = """
    spendwatch.instrument()
    call(2)
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            call(2)
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    call(2)
    print(spendwatch.flush(10))
    """
    process = run(program, sink.url)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("True\n", 0), err
    assert len(sink.taken) == 2 + 3 * 2 + 2
    assert set(sink.taken.values()) == {1}


def test_a_forked_child_that_lives_on_sends_by_itself(run: Run, sink: Sink) -> None:
    program = """
    spendwatch.instrument()
    call()
    spendwatch.flush()
    pid = os.fork()
    if pid == 0:
        call(2)
        os._exit(0 if spendwatch.flush(10) else 1)
    print(os.waitpid(pid, 0)[1])
    """
    process = run(program, sink.url)
    out, err = process.communicate(timeout=60)
    assert out == "0\n", err
    assert len(sink.taken) == 3


def test_a_fork_while_a_stream_is_open_records_it_once(run: Run, sink: Sink) -> None:
    program = """
    spendwatch.instrument()
    with httpx.Client() as client:
        with client.stream("POST", URL, json={"model": "gpt-4o-mini", "messages": []}) as response:
            pid = os.fork()
            if pid == 0:
                del response
                raise SystemExit(0)
            os.waitpid(pid, 0)
            response.read()
    print(spendwatch.flush())
    """
    process = run(program, sink.url)
    out, err = process.communicate(timeout=60)
    assert out.endswith("True\n"), err
    assert len(sink.taken) == 1
    assert list(sink.taken.values()) == [1]


POOL = """
import multiprocessing, os, sys, httpx, spendwatch

def work(n):
    spendwatch.instrument()
    for _ in range(n):
        httpx.post(os.environ["TEST_PROVIDER"] + "/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": []})
    return n

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    spendwatch.instrument()
    work(1)
    with context.Pool(2, maxtasksperchild=1) as pool:
        assert sum(pool.map(work, [2, 2, 2], chunksize=1)) == 6
        pool.close()
        pool.join()
    print(spendwatch.flush(10))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_lose_nothing(method: str, run: Run, sink: Sink, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(POOL)
    process = run(f"os.execv(sys.executable, [sys.executable, {str(program)!r}, {method!r}])", sink.url)
    out, err = process.communicate(timeout=90)
    assert out == "True\n", err
    assert len(sink.taken) == 7
    assert set(sink.taken.values()) == {1}


def test_two_destinations_do_not_get_each_others_calls(run: Run, sink: Sink) -> None:
    first = run("spendwatch.instrument(token='one'); call(4); os._exit(0)", nobody())
    first.communicate(timeout=60)
    second = run("spendwatch.instrument(token='two'); call(1); print(spendwatch.flush())", sink.url)
    out, err = second.communicate(timeout=60)
    assert out == "True\n", err
    assert len(sink.taken) == 1
    assert sink.posts[0].headers["authorization"] == "Bearer two"


def test_two_living_processes_do_not_touch_each_others_files(run: Run) -> None:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    program = """
    spendwatch.instrument()
    call(5)
    print("ready", flush=True)
    sys.stdin.readline()
    print(spendwatch.flush(20), flush=True)
    """
    processes = [run(program, endpoint) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with Sink(port) as sink:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "True\n"
        assert len(sink.taken) == 15
        assert set(sink.taken.values()) == {1}


def test_a_wrong_token_loses_nothing_and_is_said_once(run: Run, sink: Sink) -> None:
    sink.say = lambda post: Say(status=401) if post.headers.get("authorization") != "Bearer good" else Say()
    program = "spendwatch.instrument(token='bad'); call(3); print(spendwatch.flush(2), spendwatch.flush(1))"
    out, err = run(program, sink.url).communicate(timeout=60)
    assert out == "False False\n"
    assert err.count("does not accept") == 1
    assert "SPENDWATCH_TOKEN" in err
    assert "bad" not in err
    # The administrator lets that token in after all: a later process with it delivers.
    sink.say = lambda post: Say()
    out, err = run("spendwatch.instrument(token='bad'); print(spendwatch.flush())", sink.url).communicate(timeout=60)
    assert out == "True\n", err
    assert len(sink.taken) == 3


def test_a_spool_that_can_not_be_written_leaves_memory_and_says_so(run: Run, sink: Sink) -> None:
    program = "spendwatch.instrument(); call(3); print(spendwatch.flush())"
    # /proc takes no folders from anybody, not even from root.
    out, err = run(program, sink.url, SPENDWATCH_SPOOL_DIR="/proc/spendwatch").communicate(timeout=60)
    assert out == "True\n", err
    assert len(sink.taken) == 3
    assert err.count("SPENDWATCH_SPOOL_DIR") == 1


def test_calls_reach_the_server_within_seconds_without_a_flush(run: Run, sink: Sink) -> None:
    process = run("spendwatch.instrument(); call(2); sys.stdin.readline()", sink.url)
    sink.wait_for(2, timeout_s=30)
    assert process.poll() is None


def test_batches_are_gzipped_protobuf_at_the_right_path(run: Run, sink: Sink) -> None:
    program = "spendwatch.instrument(token='swt_x', service='shop'); call(2)"
    run(program, sink.url, OTEL_EXPORTER_OTLP_COMPRESSION="gzip").communicate(timeout=60)
    post: Post = sink.posts[0]
    assert post.path == "/v1/traces"
    assert post.headers["content-type"] == "application/x-protobuf"
    assert post.headers["content-encoding"] == "gzip"
    assert post.headers["authorization"] == "Bearer swt_x"
    resource = post.request.resource_spans[0]
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "shop"
    assert resource.scope_spans[0].scope.name == "spendwatch"
    assert resource.scope_spans[0].schema_url.startswith("https://opentelemetry.io/schemas/gen-ai/")


def test_a_call_is_finished_before_the_server_is_asked(run: Run, sink: Sink) -> None:
    sink.say = lambda post: Say(hang_s=60)
    started = time.monotonic()
    process = run("spendwatch.instrument(); call(20); print('done', flush=True); os._exit(0)", sink.url)
    out, err = process.communicate(timeout=60)
    assert out == "done\n", err
    assert time.monotonic() - started < 55
