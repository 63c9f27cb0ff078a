"""What the hook tests share: a provider on loopback, and the spans that were recorded."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks import guard
from tests.hooks.loopback import Loopback

Spans = Callable[[], list[ReadableSpan]]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("SPENDWATCH_") and name != "SPENDWATCH_DATA_DIR"]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPENDWATCH_SPOOL_DIR", str(tmp_path / "spool"))
    guard.faults.clear()
    yield
    spendwatch.uninstrument()
    assert not guard.faults


@pytest.fixture
def provider() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def spans() -> Spans:
    """Instrument with an exporter that remembers; call it for what was recorded up to now."""
    exporter = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=exporter, service="tests")

    def recorded() -> list[ReadableSpan]:
        assert spendwatch.flush()
        return list(exporter.get_finished_spans())

    return recorded
