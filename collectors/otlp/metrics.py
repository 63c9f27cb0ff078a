"""The collector's own counters, in Prometheus' text format. Plain integers: no span, no model, no name of anybody."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counters since the process started. Touched by the event loop's thread alone."""

    requests: Counter[int] = field(default_factory=Counter)
    received: int = 0
    ignored: int = 0
    rejected: int = 0
    stored: int = 0
    unpriced: int = 0
    inserts: int = 0
    turned_away: int = 0
    insert_seconds: float = 0.0
    queue_calls: int = 0

    def render(self, *, held_bytes: int) -> bytes:
        """The text that Prometheus reads. held_bytes: of the requests under way."""
        lines: list[str] = []

        def add(name: str, kind: str, meaning: str, value: float | str) -> None:
            lines.append(f"# HELP spendwatch_ingest_{name} {meaning}")
            lines.append(f"# TYPE spendwatch_ingest_{name} {kind}")
            lines.append(f"spendwatch_ingest_{name} {value}")

        add("spans_received_total", "counter", "Spans in readable requests.", self.received)
        add("spans_ignored_total", "counter", "Spans that are not a call to a model.", self.ignored)
        add("spans_rejected_total", "counter", "Spans that can't be stored; their senders were told.", self.rejected)
        add("calls_stored_total", "counter", "Calls committed to ClickHouse, repeats included.", self.stored)
        add("calls_unpriced_total", "counter", "Committed calls without any price.", self.unpriced)
        add("inserts_total", "counter", "Inserts committed.", self.inserts)
        add("requests_turned_away_total", "counter", "Requests that ClickHouse did not take.", self.turned_away)
        add("insert_seconds_total", "counter", "Time spent in committed inserts.", f"{self.insert_seconds:.6f}")
        add("queue_calls", "gauge", "Calls that wait for their commit.", self.queue_calls)
        add("held_bytes", "gauge", "Bytes of bodies being read or waiting.", held_bytes)
        lines.append("# HELP spendwatch_ingest_requests_total Requests by HTTP status.")
        lines.append("# TYPE spendwatch_ingest_requests_total counter")
        for status, number in sorted(self.requests.items()):
            lines.append(f'spendwatch_ingest_requests_total{{status="{status}"}} {number}')
        return ("\n".join(lines) + "\n").encode()
