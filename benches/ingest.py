"""OTLP bytes -> committed row: what one span costs the collector, against the real store.

The collector is a process of its own, as in production, and so is the store; this one sends the bytes that the SDK
sends, each span with ids of its own, and in one case a mix: eight of ten are the SDK's, one is OpenInference's and one
OpenLLMetry's, with a prompt in them. `cpu_us_per_span` is the collector's CPU, `with_store_us_per_span` the store's too
(its merges in the background included). Besides throughput flat out there is a pace: 9,600 spans a second, the time
from when a request was due to its 200. What was acknowledged is counted again in ClickHouse.

The reference is the least that could do: protobuf's own decoder on the same bytes and an insert of rows that are ready
made, without dialects, prices, identity or merging. `ratio_to_reference` is what to compare between machines.
"""

import gc
import hashlib
import http.client
import json
import os
import queue
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from spendwatch import otlp
from spendwatch.calls import CostBasis, Fingerprint, LLMCall, PricedCall, Tags, TokenUsage
from tests.fixtures.store import RunningStore, start_store

SPANS = int(os.environ.get("SPANS", "65536"))
PACE = 9_600
PACE_S = int(os.environ.get("PACE_S", "10"))
MODELS = ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4.5", "google/gemini-2.5-flash", "openai/gpt-4o")
TICK = os.sysconf("SC_CLK_TCK")


def a_call(number: int, now: datetime) -> LLMCall:
    """A streamed call through OpenRouter, as the SDK records it: reported cost, cache, prints, tags."""
    model = MODELS[number % 4]
    return LLMCall(
        trace_id=secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        parent_span_id=secrets.token_hex(8),
        started_at=now - timedelta(milliseconds=number % 60_000),
        duration_us=1_500_000 + number,
        time_to_first_chunk_us=230_000 + number,
        provider_name="openrouter",
        serving_provider=("OpenAI", "Anthropic", "Google", "Azure")[number % 4],
        request_model=model,
        response_model=model,
        response_id=f"gen-1763769600-{secrets.token_hex(8)}",
        server_address="openrouter.ai",
        server_port=443,
        usage=TokenUsage(
            input_tokens=3_000 + number % 1_000,
            output_tokens=200 + number % 500,
            total_tokens=3_200 + number % 1_500,
            cache_read_input_tokens=number % 900,
            reasoning_output_tokens=number % 100,
        ),
        reported_cost=Decimal("0.00213") + Decimal(number) / 10**9,
        upstream_cost=Decimal("0.00213") + Decimal(number) / 10**9,
        cost_basis=CostBasis.REPORTED,
        is_byok=False,
        http_status=200,
        finish_reasons=("stop",),
        streamed=True,
        tags=Tags(
            team="search", agent=f"agent-{number % 20}", session=f"s-{number % 500}", user=f"u-{number % 300}",
            environment="production",
        ),
        key_hash="a" * 64,
        wire_format="openai_chat",
        fingerprint=Fingerprint(
            system=f"{number % 50 + 1:016x}", prefix=secrets.token_hex(8), last=secrets.token_hex(8), last_role="user",
            last_simhash=secrets.token_hex(8), last_length=100 + number % 300, last_is_error=False,
            last_normalised=secrets.token_hex(8), messages=3 + number % 20, response=secrets.token_hex(8),
            response_simhash=secrets.token_hex(8), response_length=300 + number % 1_000,
        ),
    )  # fmt: skip


def other_span(number: int, now: datetime, response_id: str) -> Span:
    """A span of another instrumentation: OpenInference's and OpenLLMetry's in turn, with a prompt of 1 KB."""
    model, given, output = (
        ("gpt-4o-mini", "gpt-4o")[number // 2 % 2],
        3_000 + number % 1_000,
        200 + number % 500,
    )
    if number % 2:
        name, facts = "ChatCompletion", {
            "openinference.span.kind": "LLM", "llm.system": "openai", "llm.provider": "openai", "llm.model_name": model,
            "llm.token_count.prompt": given, "llm.token_count.completion": output,
            "llm.token_count.total": given + output, "llm.token_count.prompt_details.cache_read": number % 900,
            "session.id": f"s-{number % 500}", "user.id": f"u-{number % 300}", "output.value": "an answer " * 20,
            "llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "a prompt " * 110,
        }  # fmt: skip
    else:
        name, facts = "openai.chat", {
            "llm.request.type": "chat", "gen_ai.system": "openai", "gen_ai.request.model": model,
            "gen_ai.response.model": model, "gen_ai.response.id": response_id, "llm.is_streaming": True,
            "gen_ai.usage.input_tokens": given, "gen_ai.usage.output_tokens": output,
            "llm.usage.total_tokens": given + output, "gen_ai.usage.cache_read_input_tokens": number % 900,
            "gen_ai.completion.0.content": "an answer " * 20, "gen_ai.prompt.0.content": "a prompt " * 110,
        }  # fmt: skip
    start = otlp.unix_nano(now - timedelta(milliseconds=number % 60_000))
    return Span(
        trace_id=secrets.token_bytes(16), span_id=secrets.token_bytes(8), parent_span_id=secrets.token_bytes(8),
        name=name, kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=start, flags=1,
        end_time_unix_nano=start + 1_500_000_000 + number * 1_000, status=Status(code=Status.STATUS_CODE_OK),
        attributes=[KeyValue(key=key, value=_value(value)) for key, value in facts.items()],
    )  # fmt: skip


def _value(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=str(value))


class Request:
    """A body of so many spans that is new each time it is taken. mixed: one in five is another instrumentation's."""

    def __init__(self, spans: int, lane: int, *, mixed: bool = False) -> None:
        now = datetime.now(UTC)
        others = spans // 5 if mixed else 0
        self.calls = [a_call(number, now) for number in range(spans - others)]
        self.spans = spans
        replies = [f"chatcmpl-{secrets.token_hex(8)}" for _ in range(others)]
        foreign = [other_span(number, now, reply) for number, reply in enumerate(replies)]
        body = otlp.body(otlp.head({"service.name": "checkout"}), [otlp.record(call) for call in self.calls])
        if foreign:
            rest = ExportTraceServiceRequest()
            rest.resource_spans.add().scope_spans.add(scope=InstrumentationScope(name="others"), spans=foreign)
            body += rest.SerializeToString()
        self._body = bytearray(body)
        self._next = lane << 40
        self._places = []
        ids = [(bytes.fromhex(c.trace_id), bytes.fromhex(c.span_id), str(c.response_id)) for c in self.calls]
        ids += [(one.trace_id, one.span_id, reply) for one, reply in zip(foreign, replies, strict=True)]
        at = 0
        for trace_id, span_id, reply in ids:
            trace = self._body.index(trace_id, at)
            at = span = self._body.index(span_id, trace)
            end = self._body.find(reply.encode(), span, span + 4_000)
            self._places.append((trace, span, end + len(reply) - 16 if end >= 0 else None))

    def take(self) -> bytes:
        """The body with the next ids."""
        for trace, span, response in self._places:
            self._next += 1
            struct.pack_into(">Q", self._body, trace, self._next)
            struct.pack_into(">Q", self._body, span, self._next)
            if response is not None:
                self._body[response : response + 16] = b"%016x" % self._next
        return bytes(self._body)


@dataclass
class Collector:
    """The process under test."""

    process: "subprocess.Popen[bytes]"
    port: int
    token: str
    store: int
    """The store's process."""

    def cpu_s(self) -> tuple[float, float]:
        """Seconds of CPU so far, in user and system mode: its own, the store's."""
        return _cpu_s(self.process.pid), _cpu_s(self.store)

    def peak_mib(self) -> float:
        """The largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@dataclass
class Sent:
    """What the senders of one case saw."""

    acked: int = 0
    refused: int = 0
    latencies_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def send(collector: Collector, connection: http.client.HTTPConnection, body: bytes, spans: int, sent: Sent) -> None:
    """One request; counted only when all of it was acknowledged."""
    headers = {"content-type": "application/x-protobuf", "authorization": f"Bearer {collector.token}"}
    connection.request("POST", "/v1/traces", body, headers)
    answer = connection.getresponse()
    said = answer.read()
    good = answer.status == 200 and not said
    with sent.lock:
        if not good and not sent.refused:
            sys.stderr.write(f"refused: {answer.status} {said[:300]!r}\n")
        sent.acked += spans if good else 0
        sent.refused += 0 if good else spans


def flat_out(
    collector: Collector, *, spans: int, connections: int, total: int, lane: int, mixed: bool = False
) -> dict[str, Any]:
    """Every connection sends the next request as soon as the last one is acknowledged."""
    sent, rounds = Sent(), max(1, total // (spans * connections))
    # The bodies are made before: on two cores the sender would be the bottleneck.
    bodies: list[list[bytes]] = []
    for worker in range(connections):
        request = Request(spans, lane + worker, mixed=mixed)
        bodies.append([request.take() for _ in range(rounds)])

    def run(mine: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", collector.port, timeout=60)
        for body in mine:
            begun = time.perf_counter()
            send(collector, connection, body, spans, sent)
            sent.latencies_s.append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=run, args=(mine,)) for mine in bodies]
    cpu, begun = collector.cpu_s(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _result(collector, sent, cpu, time.perf_counter() - begun) | {
        "spans_per_request": spans, "bytes_per_span": round(len(bodies[0][0]) / spans),
    }  # fmt: skip


def paced(collector: Collector, *, spans: int, connections: int, lane: int) -> dict[str, Any]:
    """PACE spans a second for PACE_S seconds; a request that waits for a free connection waits visibly."""
    sent = Sent()
    due: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", collector.port, timeout=60)
        while (item := due.get()) is not None:
            send(collector, connection, item[1], spans, sent)
            sent.latencies_s.append(time.perf_counter() - item[0])
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    request = Request(spans, lane)
    cpu, begun = collector.cpu_s(), time.perf_counter()
    for number in range(PACE * PACE_S // spans):
        body, at = request.take(), begun + number * spans / PACE
        time.sleep(max(0.0, at - time.perf_counter()))
        due.put((at, body))
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return _result(collector, sent, cpu, time.perf_counter() - begun) | {"spans_per_request": spans}


def _result(collector: Collector, sent: Sent, cpu: tuple[float, float], wall_s: float) -> dict[str, Any]:
    own, store = collector.cpu_s()
    used, store_used = own - cpu[0], store - cpu[1]
    waits = sorted(sent.latencies_s)
    return {
        "spans_per_core_second": round(sent.acked / used) if used else None,
        "cpu_us_per_span": round(used / max(sent.acked, 1) * 1e6, 2),
        "with_store_us_per_span": round((used + store_used) / max(sent.acked, 1) * 1e6, 2),
        "cores": round(used / wall_s, 3),
        "cores_with_store": round((used + store_used) / wall_s, 3),
        "spans_per_second": round(sent.acked / wall_s),
        "ack_p50_ms": round(waits[len(waits) // 2] * 1000, 1),
        "ack_p99_ms": round(waits[min(len(waits) - 1, int(len(waits) * 0.99))] * 1000, 1),
        "acked": sent.acked,
        "refused": sent.refused,
    }


def reference(dsn: str, *, spans: int = 8192, rounds: int = 6) -> dict[str, Any]:
    """Decode the same bytes with protobuf's own decoder and insert finished rows into a table like ours."""
    from spendwatch.clickhouse.client import connect
    from spendwatch.clickhouse.columns import TYPES, micros, values

    request = Request(spans, 1 << 20)
    now = datetime.now(UTC)
    decode_s = insert_s = 0.0
    with connect(dsn, caller="bench") as ch:
        ch.command("reference", "CREATE TABLE reference AS llm_calls")
        for round_ in range(rounds + 1):
            body = request.take()
            begun = time.process_time()
            ExportTraceServiceRequest.FromString(body)
            decoded = time.process_time()
            facts = [
                (round_ << 32 | n, 0, 0, micros(c.started_at), micros(now) // 1000, "bench", c.tags.session or "",
                 *values(PricedCall(call=c)))
                for n, c in enumerate(request.calls)
            ]  # fmt: skip
            columns = list(zip(*facts, strict=True))
            ready = time.process_time()
            ch.insert("reference", "reference", list(TYPES), list(TYPES.values()), columns)
            if round_:  # the first one imports and learns
                decode_s += decoded - begun
                insert_s += time.process_time() - ready
        ch.command("reference", "DROP TABLE reference")
    each = spans * rounds / 1e6
    return {
        "decode_us_per_span": round(decode_s / each, 2),
        "insert_us_per_span": round(insert_s / each, 2),
        "cpu_us_per_span": round((decode_s + insert_s) / each, 2),
    }


def _prepare(folder: Path, store: RunningStore) -> str:
    """Database, project, prices of the models and a token: what a server has after its first hour."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "server.settings",
        "SPENDWATCH_DATA_DIR": str(folder / "server"),
        "SPENDWATCH_CLICKHOUSE": store.dsn,
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)

    from collectors.models import IngestToken, Project
    from ledger.models import Statement
    from spendwatch.clickhouse.client import connect
    from spendwatch.clickhouse.migrate import migrate

    price = {"prompt": "0.00000015", "completion": "0.0000006", "input_cache_read": "0.000000075"}
    document = json.dumps({"data": [{"id": model, "pricing": price} for model in MODELS]})
    Statement.objects.create(
        source="openrouter", kind="models", document=document, sha256=hashlib.sha256(document.encode()).hexdigest(),
        collected_at=datetime.now(UTC), confirmed_at=datetime.now(UTC), account="bench", version=1,
    )  # fmt: skip
    with connect(store.dsn, caller="bench") as ch:
        migrate(ch)
    return IngestToken.issue(Project.objects.create(slug="bench", name="Bench"), "bench")[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(token: str, store: int) -> Collector:
    port = _free_port()
    process = subprocess.Popen([sys.executable, "-m", "collectors.otlp", "--port", str(port)])
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Collector(process, port, token, store)
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise SystemExit("the collector did not start within 30 s")


def main() -> int:
    """Run all cases and print the result; 1 when a span was lost, doubled or left without a price."""
    # A bench that is stopped takes its processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="spendwatch-bench-") as name:
        folder = Path(name)
        store = start_store(folder / "store")
        try:
            return _bench(folder, store)
        finally:
            store.stop()


def _bench(folder: Path, store: RunningStore) -> int:
    from spendwatch.clickhouse.client import connect

    collector = _start(_prepare(folder, store), store.process.pid)
    try:
        gc.collect()
        gc.freeze()
        warm = flat_out(collector, spans=512, connections=2, total=4096, lane=1)
        cases = {
            "flat_out_512": flat_out(collector, spans=512, connections=24, total=SPANS, lane=100),
            "flat_out_2048": flat_out(collector, spans=2048, connections=8, total=SPANS, lane=200),
            "flat_out_8192": flat_out(collector, spans=8192, connections=3, total=SPANS, lane=400),
            "mixed_8192": flat_out(collector, spans=8192, connections=3, total=SPANS, lane=500, mixed=True),
            "paced_512": paced(collector, spans=512, connections=16, lane=300),
        }
        peak = collector.peak_mib()
    finally:
        collector.process.terminate()
        collector.process.wait()
    acked = warm["acked"] + sum(case["acked"] for case in cases.values())
    with connect(store.dsn, caller="bench") as ch:
        rows, calls, priced = ch.query(
            "check", "SELECT count(), uniqExact(call_id), countIf(list_cost IS NOT NULL) FROM llm_calls"
        )[0]
    least = reference(store.dsn)
    good = acked == rows == calls == priced
    result = {
        **cases,
        "reference": least,
        "ratio_to_reference": {
            name: round(case["cpu_us_per_span"] / least["cpu_us_per_span"], 2) for name, case in cases.items()
        },
        "peak_rss_mib": round(peak),
        "acked": acked,
        "stored": rows,
        "priced": priced,
        "acked_is_stored": good,
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
