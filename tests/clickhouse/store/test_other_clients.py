"""Clients that are not ours, unchanged: npm's @clickhouse/client, curl, and what Grafana's plugin sends over HTTP."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.store import RunningStore

from .conftest import Fetch

NODE = Path(__file__).parent / "node"
CACHE = Path(os.environ.get("SPENDWATCH_TEST_CACHE", Path(__file__).parents[3] / ".pytest_cache")) / "store-node"


def packages() -> Path:
    """A folder with what package-lock.json names, installed when the lock has changed."""
    lock = (NODE / "package-lock.json").read_bytes()
    kept = CACHE / "installed.json"
    if not kept.exists() or kept.read_bytes() != lock:
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, CACHE)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=CACHE, check=True, timeout=120, capture_output=True)
        kept.write_bytes(lock)
    return CACHE


@pytest.mark.needs("node")
def test_npms_clickhouse_client_works(store_process: RunningStore) -> None:
    folder = packages()
    script = shutil.copy(NODE / "compatibility.mjs", folder / f"run-{os.getpid()}.mjs")
    environment = {**os.environ, "STORE_URL": store_process.base, "STORE_PASSWORD": store_process.password}
    try:
        done = subprocess.run(
            ["node", script], env=environment, timeout=60, capture_output=True, text=True, check=False
        )
    finally:
        Path(script).unlink()
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_works(store_process: RunningStore, table: str) -> None:
    def curl(*more: str, data: bytes | None = None) -> str:
        command = ["curl", "-sS", "--fail-with-body", "--noproxy", "*"]
        command += ["-u", f"spendwatch:{store_process.password}", *more]
        return subprocess.run(command, input=data, timeout=30, capture_output=True, check=True).stdout.decode()

    base = store_process.url.replace("/spendwatch", "/?database=spendwatch")
    curl("-G", f"{store_process.base}/ping")
    insert = f"&query=INSERT%20INTO%20{table}%20FORMAT%20CSV"
    rows = b"".join(b"%d,w\n" % n for n in range(5000))
    curl(f"{base}{insert}", "--data-binary", "@-", "-H", "Transfer-Encoding: chunked", data=rows)
    assert curl(base, "-d", f"SELECT count(), sum(number) FROM {table}") == "5000\t12497500\n"
    assert curl("--compressed", f"{base}&enable_http_compression=1", "-d", "SELECT 1 FORMAT JSONEachRow") == '{"1":1}\n'
    with pytest.raises(subprocess.CalledProcessError) as failed:
        curl(base, "-d", "SELECT nonsense")
    assert b"Code: 47" in failed.value.stdout


def test_what_grafana_sends_is_answered(fetch: Fetch, table: str) -> None:
    # Its data source posts statements and reads JSON; its health check is a SELECT.
    assert fetch("SELECT 1 FORMAT JSON", database="spendwatch").status == 200
    fetch(f"INSERT INTO {table} VALUES (1, 'a'), (3700, 'b')")
    series = fetch(
        f"SELECT toStartOfInterval(toDateTime(number), INTERVAL 3600 second) AS time, count() AS calls FROM {table} "
        "WHERE number >= 0 AND number <= 7200 GROUP BY time ORDER BY time FORMAT JSON",
        max_execution_time="60",
        query_id="grafana-1",
    )
    body = json.loads(series.body)
    assert [row["calls"] for row in body["data"]] == [1, 1]
    assert [column["type"] for column in body["meta"]] == ["DateTime", "UInt64"]
    assert series.headers["X-ClickHouse-Query-Id"] == "grafana-1"
    databases = fetch("SELECT name FROM system.databases FORMAT JSON")
    assert "spendwatch" in {row["name"] for row in json.loads(databases.body)["data"]}
