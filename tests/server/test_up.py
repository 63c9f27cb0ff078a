"""`manage.py up` as a person runs it: real processes, real store, real broker, a data folder of its own."""

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.processes import Program, alive, descendants, eventually, free_ports, manage

pytestmark = pytest.mark.slow
CHILDREN = {"valkey", "store", "ingest", "web", "worker", "beat"}


def settings_for(folder: Path) -> dict[str, str]:
    web, ingest, store = free_ports(3)
    return {
        "SPENDWATCH_DATA_DIR": str(folder),
        "SPENDWATCH_WEB_PORT": str(web),
        "SPENDWATCH_INGEST_PORT": str(ingest),
        "SPENDWATCH_STORE_PORT": str(store),
    }


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Settings of a service of its own."""
    return settings_for(tmp_path / "data")


@pytest.fixture
def service(own: dict[str, str]) -> Iterator[Program]:
    """A service that is ready; stopped at the end."""
    with manage("up", **own) as program:
        program.wait_for("Spendwatch is ready")
        yield program
        if alive(program.pid):
            program.send(signal.SIGTERM)
            program.wait()


def get(port: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def commands(program: Program) -> dict[str, int]:
    """Child name -> process id, by the command lines below the supervisor."""
    marks = {
        "valkey": "valkey-server",
        "store": "spendwatch.clickhouse.store",
        "ingest": "collectors.otlp",
        "web": "granian",
        "worker": "server\0worker",
        "beat": "server\0beat",
    }
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    found = {}
    for pid in children:
        line = Path(f"/proc/{pid}/cmdline").read_text()
        found |= {name: int(pid) for name, mark in marks.items() if mark in line}
    return found


def test_the_first_start_makes_everything_and_says_it_once(own: dict[str, str], service: Program) -> None:
    text = "".join(service.output)
    password = re.search(r"password  (\S+)", text)
    token = re.search(r"SPENDWATCH_TOKEN=(swt_\S+)", text)
    assert password
    assert token
    assert f"http://127.0.0.1:{own['SPENDWATCH_WEB_PORT']}/admin/" in text
    assert f"SPENDWATCH_ENDPOINT=http://127.0.0.1:{own['SPENDWATCH_INGEST_PORT']}" in text
    status, body = get(own["SPENDWATCH_WEB_PORT"], "/readyz")
    assert status == 200
    assert json.loads(body)["ready"] is True
    assert set(commands(service)) == CHILDREN
    secrets = Path(own["SPENDWATCH_DATA_DIR"]) / "secrets"
    assert {oct(path.stat().st_mode)[-3:] for path in secrets.iterdir()} == {"600"}

    # A clean stop leaves nothing behind, and the next start tells no secret.
    below = descendants(service.pid)
    service.send(signal.SIGINT)
    assert service.wait() == 0
    assert not any(alive(pid) for pid in below)
    with manage("up", **own) as again:
        again.wait_for("Spendwatch is ready")
        text = "".join(again.output)
        assert "password" not in text
        assert "swt_" not in text
        again.send(signal.SIGTERM)
        assert again.wait() == 0


def test_killed_processes_come_back_and_a_second_instance_is_refused(
    own: dict[str, str], service: Program, tmp_path: Path
) -> None:
    for name in ("web", "store", "worker"):
        before = commands(service)[name]
        os.kill(before, signal.SIGKILL)
        service.wait_for(rf"^{name} ended \(killed by SIGKILL\)")
        service.wait_for(rf"^{name} is back")
        assert commands(service)[name] != before
    eventually(lambda: get(own["SPENDWATCH_WEB_PORT"], "/readyz")[0] == 200, "everything is ready again")

    other = {**settings_for(tmp_path), "SPENDWATCH_DATA_DIR": own["SPENDWATCH_DATA_DIR"]}
    text = refused(**other)
    assert f"another instance (process {service.pid}) already runs on the data in" in text
    assert get(own["SPENDWATCH_WEB_PORT"], "/readyz")[0] == 200


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_works(own: dict[str, str], service: Program) -> None:
    below = descendants(service.pid)
    assert len(below) >= len(CHILDREN)
    service.send(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in below), "every process has ended")

    # The ports may also be chosen on the command line.
    web, ingest, store = (str(port) for port in free_ports(3))
    ports = ["--web-port", web, "--ingest-port", ingest, "--store-port", store]
    with manage("up", *ports, SPENDWATCH_DATA_DIR=own["SPENDWATCH_DATA_DIR"]) as again:
        again.wait_for("Spendwatch is ready")
        assert get(web, "/readyz")[0] == 200
        assert get(ingest, "/readyz")[0] == 200
        again.send(signal.SIGTERM)
        assert again.wait() == 0


def refused(**environment: str) -> str:
    """What `manage.py up` says when it can't start; it leaves nothing running and shows no traceback."""
    with manage("up", **environment) as program:
        assert program.wait() == 1
    text = "".join(program.output)
    assert "Traceback" not in text
    assert "is ready" not in text
    return text


def test_taken_ports_are_named_with_what_to_do(own: dict[str, str]) -> None:
    with socket.socket() as holder, socket.socket() as other:
        for one in (holder, other):
            one.bind(("127.0.0.1", 0))
            one.listen()
        own["SPENDWATCH_WEB_PORT"] = str(holder.getsockname()[1])
        own["SPENDWATCH_INGEST_PORT"] = str(other.getsockname()[1])
        text = refused(**own)
    for name in ("web", "ingest"):
        port = own[f"SPENDWATCH_{name.upper()}_PORT"]
        assert f"expected port {port} on 127.0.0.1 to be free for {name}, found: it is in use" in text
        assert f"--{name}-port" in text
    assert not (Path(own["SPENDWATCH_DATA_DIR"]) / "store").exists()


def test_a_data_folder_that_cannot_be_written_is_named(own: dict[str, str], tmp_path: Path) -> None:
    # Permission bits don't bind root, a folder below a file can't be made by anybody.
    (tmp_path / "file").write_text("")
    own["SPENDWATCH_DATA_DIR"] = str(tmp_path / "file" / "data")
    text = refused(**own)
    assert str(tmp_path / "file" / "data") in text
    assert "SPENDWATCH_DATA_DIR" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to a user whom the permission bits bind")
def test_a_data_folder_of_another_user_is_named(tmp_path: Path) -> None:
    from server.supervisor.preflight import sole_use

    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    child = os.fork()
    if child == 0:
        # Anything but the expected error ends with another code.
        code = 1
        try:
            os.chmod(tmp_path, 0o755)
            os.setuid(65534)
            with sole_use(folder):
                pass
        except Exception as error:
            code = 7 if "Make the folder writable" in str(error) or "Permission denied" in str(error) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_wrong_clickhouse_password_is_named_and_stops_the_start(own: dict[str, str], store_dsn: str) -> None:
    wrong = re.sub(r"://([^:]+):[^@]+@", r"://\1:not-the-password@", store_dsn)
    text = refused(**own, SPENDWATCH_CLICKHOUSE=wrong)
    assert "refused the user or password" in text
    assert "SPENDWATCH_CLICKHOUSE" in text
    assert "not-the-password" not in text
    socket_file = Path(own["SPENDWATCH_DATA_DIR"]) / "run" / "valkey.sock"
    assert not socket_file.exists() or not _accepts(socket_file)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True


def test_a_wrong_variable_is_named(own: dict[str, str]) -> None:
    text = refused(**own, SPENDWATCH_HTTPS="perhaps")
    assert "SPENDWATCH_HTTPS" in text
    assert "perhaps" in text


def test_an_external_broker_and_clickhouse_are_used_and_not_started(
    own: dict[str, str], store_dsn: str, tmp_path: Path
) -> None:
    from server.supervisor.supervisor import Supervisor
    from server.supervisor.valkey import valkey

    path = Path("/tmp") / f"sw-{os.getpid()}-{tmp_path.name[-8:]}" / "v.sock"
    with Supervisor(logs=tmp_path / "logs", directory=tmp_path, say=print) as outside:
        outside.start(valkey(path, tmp_path / "valkey"))
        outside.wait_ready()
        external = {"SPENDWATCH_CLICKHOUSE": store_dsn, "SPENDWATCH_BROKER_URL": f"redis+socket://{path}"}
        with manage("up", **own, **external) as program:
            program.wait_for("Spendwatch is ready")
            assert set(commands(program)) == CHILDREN - {"valkey", "store"}
            program.send(signal.SIGTERM)
            assert program.wait() == 0
    path.parent.rmdir()
