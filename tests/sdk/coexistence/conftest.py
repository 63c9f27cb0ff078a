"""What the coexistence tests share: programs run in processes of their own, and the rows that come of what they export.

The other instrumentations are not in the lock file: some want versions of each other that it can't hold. They are run
with an interpreter that has them, and are skipped by name without it:

    uv venv peers && uv pip install --python peers/bin/python -e . -r tests/sdk/coexistence/peers.txt
    SPENDWATCH_TEST_PEERS=peers/bin/python pytest tests/sdk/coexistence
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spendwatch.calls import LLMCall, Window
from spendwatch.clickhouse import queries, rollup
from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp import otlp
from tests.collectors.otlp.conftest import Collector, collector, make_collector, partial_success
from tests.fixtures.clickhouse import TABLES
from tests.hooks.loopback import Answer, Loopback
from tests.hooks.loopback import Seen as Asked
from tests.hooks.replies import CHAT
from tests.sdk.conftest import Run
from tests.sdk.sink import Sink

__all__ = ["collector", "make_collector"]  # fixtures

PEERS = os.environ.get("SPENDWATCH_TEST_PEERS", sys.executable)
"""The interpreter that has the other instrumentations."""


def need(*modules: str) -> None:
    """Skip where one can't be imported: it is missing, or does not fit the versions of the others there."""
    for module in modules:
        tried = subprocess.run([PEERS, "-c", f"import {module}"], capture_output=True, text=True)
        if tried.returncode != 0:
            why = (tried.stderr.strip().splitlines() or ["?"])[-1]
            pytest.skip(f"{module} can't be imported ({why}); see tests/sdk/coexistence/conftest.py")


PROLOGUE = """
import json, logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
logging.disable(logging.WARNING)
memory = InMemorySpanExporter()
def own_provider():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    return provider
def show():
    assert spendwatch.flush(20)
    for span in memory.get_finished_spans():
        print(json.dumps({
            "name": span.name, "scope": span.instrumentation_scope.name, "version": span.instrumentation_scope.version,
            "span_id": f"{span.context.span_id:016x}", "trace_id": f"{span.context.trace_id:032x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent else None, "attributes": dict(span.attributes),
            "start": span.start_time, "end": span.end_time, "kind": span.kind.value + 1,
        }, default=str))
"""


@dataclass(slots=True)
class Seen:
    """What came of a program: the spans that we sent, and all that its own TracerProvider exported."""

    ours: list[Any]
    apps: list[dict[str, Any]]

    def scopes(self) -> list[str]:
        return sorted(span["scope"] for span in self.apps)


Program = Callable[[str], Seen]


@pytest.fixture
def provider() -> Iterator[Loopback]:
    """One whose replies have an id each, as a provider's do."""
    with Loopback() as server:

        def answer(seen: Asked) -> Answer:
            body = json.dumps({**CHAT, "id": f"chatcmpl-{len(server.seen)}"}).encode()
            return Answer(chunks=[body], framing="length")

        server.answers = answer
        yield server


@pytest.fixture
def program(run: Run, sink: Sink) -> Program:
    """Run a program that ends with show(); what was recorded of it."""

    def started(text: str) -> Seen:
        process = run(PROLOGUE + textwrap.dedent(text) + "\nshow()\n", sink.url, python=PEERS)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return Seen(list(sink.spans), [json.loads(line) for line in out.splitlines() if line.startswith("{")])

    return started


Ingest = Callable[[Seen], list[LLMCall]]


@pytest.fixture
def at_ingest(collector: Collector, clickhouse: Connection) -> Ingest:
    """The rows that come of both, when the app exports its own spans to the same server, in any order of the two."""

    def stored(seen: Seen) -> list[LLMCall]:
        ours, apps = _ours(seen), _apps(seen)
        both = ExportTraceServiceRequest()
        both.MergeFrom(ours)
        both.MergeFrom(apps)
        found = [_stored(collector, clickhouse, requests) for requests in ([ours, apps], [apps, ours], [both])]
        assert len({len(calls) for calls in found}) == 1, [[call.source for call in calls] for calls in found]
        return found[0]

    return stored


def _stored(collector: Collector, ch: Connection, requests: Sequence[ExportTraceServiceRequest]) -> list[LLMCall]:
    for table in TABLES:
        ch.command("empty", f"TRUNCATE TABLE {table}")
    for _ in range(2):  # each is sent again, as after a lost answer
        for request in requests:
            assert partial_success(collector.post(request.SerializeToString())) == (0, "")
        rollup.roll(ch)
    now = datetime.now(UTC)
    window = Window(now - timedelta(hours=1), now + timedelta(hours=1))
    return [stored.call for stored in queries.calls_page(ch, {}, window, page=1, page_size=99).calls]


def _ours(seen: Seen) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    scoped.scope.name = "spendwatch"
    scoped.spans.extend(seen.ours)
    return request


def _apps(seen: Seen) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for item in seen.apps:
        scoped = request.resource_spans.add().scope_spans.add()
        scoped.scope.name = item["scope"]
        attributes = {name: value for name, value in item["attributes"].items() if value is not None}
        made = otlp.span(item["name"], attributes=attributes, parent=item["parent"])
        made.trace_id, made.span_id = bytes.fromhex(item["trace_id"]), bytes.fromhex(item["span_id"])
        made.start_time_unix_nano, made.end_time_unix_nano = item["start"], item["end"]
        scoped.spans.append(made)
    return request
