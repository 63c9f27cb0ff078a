"""deploy/otel-collector: what can be known of its configuration without the Collector's binary."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.otlp.limits import Limits
from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp.conftest import Collector, collector, make_collector, partial_success
from tests.collectors.otlp.test_golden import CALLS, body, stored

__all__ = ["collector", "make_collector"]

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "otel-collector"
FILES = ("config.yaml", "with-clickhouse.yaml")

# The settings that the Collector knows: exporter/exporterhelper (README of v0.144), config/confighttp, and
# exporter/clickhouseexporter/config.schema.yaml. It refuses to start with any other.
QUEUE = {"enabled", "num_consumers", "wait_for_result", "block_on_overflow", "sizer", "queue_size", "storage", "batch"}
BATCH = {"flush_timeout", "min_size", "max_size", "sizer"}
RETRY = {"enabled", "initial_interval", "max_interval", "max_elapsed_time", "multiplier", "randomization_factor"}
HELPER = {"timeout", "retry_on_failure", "sending_queue"}
OTLP_HTTP = HELPER | {"endpoint", "traces_endpoint", "headers", "compression", "encoding", "tls"}
CLICKHOUSE = HELPER | {
    "async_insert", "cluster_name", "compress", "connection_params", "create_schema", "database", "endpoint", "json",
    "password", "table_engine", "tls", "traces_table_name", "ttl", "username",
}  # fmt: skip
DURATION = re.compile(r"(\d+(ms|s|m|h))+")


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def load(*names: str) -> dict[str, Any]:
    """The files as the Collector lays them over each other: maps are merged, everything else replaced."""

    def merge(under: Any, over: Any) -> Any:
        if isinstance(under, dict) and isinstance(over, dict):
            return {**under, **{key: merge(under.get(key), value) for key, value in over.items()}}
        return over

    out: dict[str, Any] = {}
    for name in names:
        out = merge(out, yaml.safe_load(text(name)))
    return out


@pytest.mark.parametrize("files", [FILES[:1], FILES])
def test_every_part_that_is_used_is_configured_and_the_other_way_round(files: tuple[str, ...]) -> None:
    config = load(*files)
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in used.items():
            names.update(pipeline[kind])
    for kind, names in used.items():
        assert names == set(config[kind])
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    for exporter in config["exporters"].values():
        storage = exporter["sending_queue"].get("storage")
        assert storage is None or storage in config["extensions"]
    assert config["service"]["pipelines"]["traces"]["processors"][0] == "memory_limiter"


def test_every_setting_is_one_that_the_collector_knows() -> None:
    for name, exporter in load(*FILES)["exporters"].items():
        assert set(exporter) <= (CLICKHOUSE if name == "clickhouse" else OTLP_HTTP)
        assert set(exporter["retry_on_failure"]) <= RETRY
        assert set(exporter["sending_queue"]) <= QUEUE
        batch = exporter["sending_queue"]["batch"]
        assert set(batch) <= BATCH
        assert batch["min_size"] <= batch["max_size"] <= exporter["sending_queue"]["queue_size"]
        for key in ("initial_interval", "max_interval", "max_elapsed_time"):
            assert DURATION.fullmatch(exporter["retry_on_failure"][key])
        assert DURATION.fullmatch(exporter["timeout"])
        assert DURATION.fullmatch(batch["flush_timeout"])


def test_a_batch_fits_into_a_request_and_an_answer_into_the_timeout() -> None:
    ours = load("config.yaml")["exporters"]["otlp_http/spendwatch"]
    assert ours["sending_queue"]["batch"]["max_size"] * 2 < Limits().spans
    assert int(ours["timeout"].removesuffix("s")) > Limits().commit_s
    assert ours["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_every_variable_is_documented_with_its_default() -> None:
    readme = text("README.md")
    for name in FILES:
        for variable, default in re.findall(r"\$\{env:(\w+)(?::-([^}]*))?\}", text(name)):
            assert f"`{variable}`" in readme
            assert not default or f"`{default}`" in readme


def test_what_it_sends_is_taken(collector: Collector, clickhouse: Connection) -> None:
    ours = load("config.yaml")["exporters"]["otlp_http/spendwatch"]
    known = {"SPENDWATCH_ENDPOINT": collector.url, "SPENDWATCH_TOKEN": collector.token}

    def resolved(value: str) -> str:
        return re.sub(r"\$\{env:(\w+)\}", lambda found: known[found[1]], value)

    # exporter/otlphttpexporter: the signal's path behind the endpoint, protobuf by default.
    headers = {name: resolved(value) for name, value in ours["headers"].items()}
    kind, sent = body("pydantic_ai")
    response = collector.http.post(
        resolved(ours["endpoint"]) + "/v1/traces", content=sent, headers={**headers, "content-type": kind}
    )
    assert partial_success(response) == (0, "")
    assert stored(clickhouse) == CALLS["pydantic_ai"]
    # The try that the README advises.
    empty = collector.http.post(
        f"{collector.url}/v1/traces", content=b"{}", headers={**headers, "content-type": "application/json"}
    )
    assert empty.status_code == 200
