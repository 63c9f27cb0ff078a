"""What the coexistence tests share: programs run in processes of their own, and what they exported, read at ingest."""

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.otlp import reading
from collectors.otlp.limits import Limits
from spendwatch import prices
from spendwatch.calls import LLMCall, call_id
from tests.collectors.otlp import otlp
from tests.sdk.conftest import Run
from tests.sdk.sink import Sink

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
def program(run: Run, sink: Sink) -> Program:
    """Run a program that ends with show(); what was recorded of it."""

    def started(text: str) -> Seen:
        process = run(PROLOGUE + textwrap.dedent(text) + "\nshow()\n", sink.url)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return Seen(list(sink.spans), [json.loads(line) for line in out.splitlines() if line.startswith("{")])

    return started


def at_ingest(seen: Seen) -> list[LLMCall]:
    """The rows that come of both, when the app exports its own spans to the same server: one per call_id."""
    request = ExportTraceServiceRequest()
    ours = request.resource_spans.add().scope_spans.add()
    ours.scope.name = "spendwatch"
    ours.spans.extend(seen.ours)
    for item in seen.apps:
        scoped = request.resource_spans.add().scope_spans.add()
        scoped.scope.name = item["scope"]
        made = otlp.span(item["name"], attributes={k: v for k, v in item["attributes"].items() if v is not None})
        made.trace_id, made.span_id = bytes.fromhex(item["trace_id"]), bytes.fromhex(item["span_id"])
        made.start_time_unix_nano, made.end_time_unix_nano = item["start"], item["end"]
        scoped.spans.append(made)
    found = reading.read(
        request.SerializeToString(),
        content_type="application/x-protobuf",
        encoding="",
        project="p",
        book=prices.packaged(),
        now=datetime.now(UTC),
        limits=Limits(),
        take=lambda size: None,
    )
    rows: dict[int, LLMCall] = {}
    for priced in found.calls:
        known = rows.setdefault(call_id(priced.call), priced.call)
        if priced.call.source == "sdk":
            rows[call_id(known)] = priced.call
    return list(rows.values())
