"""Every question that Spendwatch asks, on millions of calls, and the same spend questions on two other shapes.

The calls are made by the engine, stored through the real migrations, rolled up by the real roller; each question is the
function that pages, budgets and tasks call, timed from the call to its typed answer, through the store's HTTP. The last
hour is left open, as it is in life. `ratio` is the other shape's median over ours, in one run on one machine;
`store_cpu_ms` and `cpu_ratio` hold also where the machine is busy with other things.

    make bench-query                         10 million calls, all three shapes
    make bench-query ARGS="1M"               fewer; 100M only where 40 GB and two hours are at hand
    make bench-query ARGS="100M --ours"      without the other shapes
    make bench-query ARGS="10M --folder D"   keep the data in D and use it again
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benches import made_up
from benches.rivals import RIVALS, Rival, ask, size
from spendwatch.calls import Window
from spendwatch.clickhouse import hourly, queries, rollup
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.migrate import migrate
from spendwatch.errors import StoreError
from tests.fixtures.store import RunningStore, start_store

TICK = os.sysconf("SC_CLK_TCK")
SUMS = ("llm_calls_hourly", "llm_calls_daily")
ROLL_EVERY = 2_000_000
RUNS = 21
LONGEST_S = 8.0
"""A question is asked RUNS times, or as often as fits into this."""
BYTES_PER_CALL = 500
"""Of disk, for all three shapes and their merges."""


class Uncached(Connection):
    """A connection whose answers don't come from what the engine remembers of the last one."""

    def query(self, name: str, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """As Connection.query."""
        end = " SETTINGS use_query_condition_cache = 0"
        return super().query(name, sql if sql.startswith(("SHOW", "EXPLAIN")) else sql + end, parameters)


@dataclass(frozen=True, slots=True)
class Data:
    """What is asked about: the end of the record, and values that occur in it."""

    end: datetime
    total: int
    team: str
    session: str
    session_day: Window
    call_id: int
    search: str

    @property
    def month(self) -> Window:
        """All 30 days."""
        return Window(self.end - timedelta(days=made_up.DAYS), self.end)

    @property
    def today(self) -> Window:
        """Since midnight UTC; of the day before when that is less than six hours ago."""
        start = (self.end - timedelta(hours=6)).replace(hour=0, minute=0, second=0, microsecond=0)
        return Window(start, self.end)

    @property
    def a_day(self) -> Window:
        """One whole day in the middle."""
        start = (self.end - timedelta(days=11)).replace(hour=0, minute=0, second=0, microsecond=0)
        return Window(start, start + timedelta(days=1))

    def last(self, **span: int) -> Window:
        """The last minutes or hours."""
        return Window(self.end - timedelta(**span), self.end)


Question = Callable[[Connection, Data], object]

# What is compared with the other shapes: name -> (ours, the window it is about).
SPEND: dict[str, tuple[Question, Callable[[Data], Window]]] = {
    "month_by_model_and_team": (
        lambda ch, d: queries.spend_by(ch, ["request_model", "team"], {}, d.month), lambda d: d.month),
    "month_total": (lambda ch, d: queries.spend(ch, {}, d.month), lambda d: d.month),
    "today_total": (lambda ch, d: queries.spend(ch, {}, d.today), lambda d: d.today),
    "budget_of_a_team": (lambda ch, d: queries.spend(ch, {"team": [d.team]}, d.month), lambda d: d.month),
    "month_by_day": (
        lambda ch, d: queries.spend_series(ch, {}, d.month, step="day", by="request_model"), lambda d: d.month),
    "last_hour_by_agent": (
        lambda ch, d: queries.spend_by(ch, ["agent"], {}, d.last(hours=1), limit=20), lambda d: d.last(hours=1)),
    "reconcile_a_day": (lambda ch, d: queries.usage_cells(ch, d.a_day), lambda d: d.a_day),
    "session": (
        lambda ch, d: queries.spend(ch, {"session_id": [d.session]}, d.session_day), lambda d: d.session_day),
}  # fmt: skip

# The rest of what pages and tasks ask.
PAGES: dict[str, Question] = {
    "start_by_team": lambda ch, d: queries.spend_by(ch, ["team"], {}, d.month, limit=8),
    "start_by_model": lambda ch, d: queries.spend_by(ch, ["request_model"], {}, d.month, limit=8),
    "start_unmatched_days": lambda ch, d: queries.spend_series(
        ch, {"provider_name": ["openrouter"]}, d.month, step="day"),
    "start_chart_hours": lambda ch, d: queries.spend_series(
        ch, {}, d.last(hours=48), step="hour", by="request_model"),
    "last_received": lambda ch, _: queries.last_received(ch),
    "calls_page_of_a_day": lambda ch, d: queries.calls_page(ch, {}, d.last(days=1), page=1, page_size=50),
    "calls_page_of_a_month": lambda ch, d: queries.calls_page(ch, {}, d.month, page=1, page_size=50),
    "calls_page_of_a_team": lambda ch, d: queries.calls_page(
        ch, {"team": [d.team]}, d.last(days=1), page=1, page_size=50),
    "calls_page_searched": lambda ch, d: queries.calls_page(
        ch, {}, d.last(days=1), page=1, page_size=50, search=d.search),
    "one_call": lambda ch, d: queries.call(ch, d.call_id),
    "choices_of_a_day": lambda ch, d: queries.distinct(ch, "request_model", d.last(days=1)),
    "unsettled": lambda ch, d: queries.unsettled(ch, "openrouter", d.month, limit=500),
}  # fmt: skip


def timed(store: RunningStore, question: Callable[[], object]) -> dict[str, float]:
    """p50 and p95 in milliseconds of a question asked again and again, and the CPU that the store spends on one."""
    question()
    taken: list[float] = []
    until, used = time.perf_counter() + LONGEST_S, cpu_s(store)
    while len(taken) < RUNS and (len(taken) < 3 or time.perf_counter() < until):
        begun = time.perf_counter()
        question()
        taken.append(time.perf_counter() - begun)
    taken.sort()
    return {
        "p50_ms": round(taken[len(taken) // 2] * 1000, 1),
        "p95_ms": round(taken[min(len(taken) - 1, int(len(taken) * 0.95))] * 1000, 1),
        "store_cpu_ms": round((cpu_s(store) - used) / len(taken) * 1000, 1),
    }


def cpu_s(store: RunningStore) -> float:
    """Seconds of CPU that the store has used."""
    fields = Path(f"/proc/{store.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def fill(ch: Connection, store: RunningStore, total: int, end: datetime, *, prints: bool) -> dict[str, Any]:
    """All but the calls of the last hour, rolled up as they come, merged as after a quiet night."""
    filled, rolled = Cost(), Cost()
    last_hour = total // (made_up.DAYS * 24)
    hours = 0
    for first in range(0, total - last_hour, made_up.BLOCK):
        count = min(made_up.BLOCK, total - last_hour - first)
        with filled.of(store):
            made_up.fill(ch, first=first, count=count, total=total, end=end, prints=prints)
        done = first + count
        if done % ROLL_EVERY < made_up.BLOCK or done == total - last_hour:
            with rolled.of(store):
                hours += rollup.roll(ch).hours
            say(f"made {done:,} calls")
    # What still settles is summed for good, and so are the days.
    time.sleep(hourly.SETTLING_S + 2)
    with rolled.of(store):
        last = rollup.roll(ch)
    idle = rollup.roll(ch).duration_s
    for table in ("llm_calls", *SUMS):
        merge_all(ch, table)
    return {
        "fill": filled.rates(total),
        "rollup": rolled.rates(total) | {"hours_rebuilt": hours + last.hours, "idle_pass_s": round(idle, 3)}
        | {table: sums_size(ch, table, total) for table in SUMS},
    }  # fmt: skip


def sums_size(ch: Connection, table: str, total: int) -> dict[str, float]:
    """Rows of a rollup, and what a call costs in it."""
    rows, used = size(ch, table)
    return {"rows": rows, "bytes_per_call": round(used / total, 2), "calls_per_row": round(total / max(rows, 1), 1)}


def merge_all(ch: Connection, table: str) -> None:
    """Merge each partition, and wait for it."""
    parts = ch.query(
        "partitions",
        "SELECT DISTINCT partition_id FROM system.parts WHERE active AND table = {table:String}", {"table": table},
    )  # fmt: skip
    for (name,) in parts:
        with suppress(StoreError):  # the engine goes on where the client stopped waiting
            ch.command("merge", f"OPTIMIZE TABLE {table} PARTITION ID '{name}' FINAL")
        while ch.query("merges", "SELECT 1 FROM system.merges WHERE table = {table:String}", {"table": table}):
            time.sleep(1)


@dataclass(slots=True)
class Cost:
    """Seconds on the clock and of the store's CPU that some statements took together."""

    wall_s: float = 0.0
    used_s: float = 0.0

    @contextmanager
    def of(self, store: RunningStore) -> Iterator[None]:
        """Count what runs in here."""
        used, begun = cpu_s(store), time.perf_counter()
        yield
        self.wall_s += time.perf_counter() - begun
        self.used_s += cpu_s(store) - used

    def rates(self, calls: int) -> dict[str, Any]:
        """Calls a second and per second of CPU."""
        return {
            "calls_per_second": round(calls / self.wall_s),
            "calls_per_core_second": round(calls / max(self.used_s, 0.01)),
        }


def open_hour(ch: Connection, total: int, end: datetime, *, prints: bool) -> dict[str, Any]:
    """The calls of the last hour, then what the roller needs for them and how soon a new call counts."""
    last_hour = total // (made_up.DAYS * 24)
    made_up.fill(ch, first=total - last_hour, count=last_hour, total=total, end=end, prints=prints)
    busy = rollup.roll(ch)
    window = Window(end - timedelta(days=made_up.DAYS), end + timedelta(days=1))
    before = queries.spend(ch, {}, window).calls
    begun = time.perf_counter()
    made_up.fill(ch, first=total, count=1, total=total, end=end, prints=prints)
    while queries.spend(ch, {}, window).calls == before:
        pass
    return {
        "calls": last_hour, "pass_s": round(busy.duration_s, 3), "hours": busy.hours,
        "new_call_counts_after_s": round(time.perf_counter() - begun, 3),
    }  # fmt: skip


def exact(ch: Connection, data: Data) -> dict[str, Any]:
    """Whether sums from the rollups equal those of the calls, to the last digit."""
    spend = queries.spend(ch, {}, data.month)
    rows = ch.query(
        "exact",
        "SELECT count(), sum(effective_cost), sum(input_tokens) FROM llm_calls FINAL WHERE "
        "started_at >= fromUnixTimestamp({start:Int64}) AND started_at < fromUnixTimestamp({end:Int64})",
        {"start": int(data.month.start.timestamp()), "end": int(data.month.end.timestamp())},
    )
    return {
        "calls": spend.calls, "cost_usd": str(spend.cost),
        "rollup_is_calls": rows[0] == (spend.calls, spend.cost, spend.input_tokens),
    }  # fmt: skip


def where_bytes_go(ch: Connection) -> dict[str, Any]:
    """Bytes a call on disk: all, the fingerprints' part, the dearest columns."""
    rows, used = size(ch, "llm_calls")
    columns = ch.query(
        "columns",
        "SELECT column, sum(column_bytes_on_disk) AS used FROM system.parts_columns "
        "WHERE active AND table = 'llm_calls' GROUP BY column ORDER BY used DESC",
    )
    prints = sum(taken for name, taken in columns if name.startswith("fingerprint_"))
    indices = ch.query("indices", "SELECT sum(data_compressed_bytes) FROM system.data_skipping_indices "
                                  "WHERE table = 'llm_calls'")[0][0]  # fmt: skip
    return {
        "bytes_per_call": round(used / rows, 1),
        "of_it_fingerprints": round(prints / rows, 1),
        "of_it_indices": round(indices / rows, 1),
        "without_fingerprints": round((used - prints) / rows, 1),
        "columns": {name: round(taken / rows, 2) for name, taken in columns[:24]},
    }


def compare(
    ch: Connection, store: RunningStore, data: Data, rival: Rival, ours: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Fill the shape with the same calls, ask it the same, and say how many times longer it takes."""
    rival.make(ch)
    at, step = int(data.month.start.timestamp()), 6 * 3600
    while at < data.end.timestamp() + 3600:
        rival.copy(ch, at, at + step)
        at += step
    say(f"filled {rival.table}")
    merge_all(ch, rival.table)
    rows, used = rival.size(ch)
    out: dict[str, Any] = {"rows": rows, "bytes_per_call": round(used / rows, 1)}
    windows = {name: window for name, (_, window) in SPEND.items()} | {"loop_scan": lambda d: d.last(minutes=5)}
    for name, window in windows.items():
        about = window(data)
        parameters = {
            "start": int(about.start.timestamp()), "end": int(about.end.timestamp()),
            "team": data.team, "session": data.session,
        }  # fmt: skip
        try:
            found = timed(store, partial(ask, ch, rival, name, parameters))
        except StoreError as error:  # a busy machine, and a question that takes a minute
            out[name] = {"failed": str(error)[:200]}
            continue
        out[name] = found | {
            "ratio": round(found["p50_ms"] / ours[name]["p50_ms"], 1),
            "cpu_ratio": round(found["store_cpu_ms"] / max(ours[name]["store_cpu_ms"], 0.1), 1),
        }
    ch.command("rival", f"DROP TABLE {rival.table} SYNC")
    return out


def look(ch: Connection, end: datetime, total: int) -> Data:
    """Values to ask for: a session, a call and a reply's id of ten days ago."""
    rows = ch.query(
        "look",
        "SELECT session_id, call_id, toUnixTimestamp(started_at), response_id FROM llm_calls "
        "WHERE started_at >= fromUnixTimestamp({at:Int64}) AND response_id != '' ORDER BY started_at LIMIT 1",
        {"at": int((end - timedelta(hours=5)).timestamp())},
    )
    session, call, at, reply = rows[0]
    day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0)
    return Data(
        end=end, total=total, team="search", session=session, session_day=Window(day, day + timedelta(days=1)),
        call_id=call, search=reply,
    )  # fmt: skip


@contextmanager
def folder_of(chosen: str | None) -> Any:
    """The folder of the data: a temporary one, or the one that was named."""
    if chosen:
        yield Path(chosen)
        return
    with tempfile.TemporaryDirectory(prefix="spendwatch-bench-", dir=os.environ.get("TMPDIR")) as name:
        yield Path(name)


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


def main() -> int:
    """Run it all and print the result; 1 when a sum is not exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", nargs="?", default="10M", help="how many calls: 1M, 10M, 100M (default %(default)s)")
    parser.add_argument("--ours", action="store_true", help="leave the other shapes out")
    parser.add_argument("--no-fingerprints", action="store_true", help="calls as other instrumentations send them")
    parser.add_argument("--folder", help="keep the data here; use it when it is there already")
    chosen = parser.parse_args()
    total = int(float(chosen.calls.upper().removesuffix("M")) * 1_000_000)
    # A bench that is stopped takes its processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with folder_of(chosen.folder) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = total * BYTES_PER_CALL // (3 if chosen.ours else 1), shutil.disk_usage(folder).free
        if free < needed:
            raise SystemExit(f"expected {needed >> 30} GiB free at {folder}, found {free >> 30}. Choose fewer calls.")
        store = start_store(folder, "--memory-mb", "6144")
        try:
            with connect(store.dsn, caller="bench") as plain:
                return run(Uncached(plain._client, plain._dsn, "bench"), store, total, chosen)
        finally:
            store.stop()


def run(ch: Connection, store: RunningStore, total: int, chosen: argparse.Namespace) -> int:
    """All steps."""
    kept = store.folder / "made.json"
    prints = not chosen.no_fingerprints
    if kept.exists():
        facts = json.loads(kept.read_text())
        end, result = datetime.fromisoformat(facts["end"]), facts["result"]
    else:
        end = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
        migrate(ch)
        result = {"calls": total} | fill(ch, store, total, end, prints=prints)
        result["open_hour"] = open_hour(ch, total, end, prints=prints)
        kept.write_text(json.dumps({"end": end.isoformat(), "result": result}))
    data = look(ch, end, total)
    result["space"] = where_bytes_go(ch)
    result["exact"] = exact(ch, data)
    ours = {name: timed(store, partial(question, ch, data)) for name, (question, _) in SPEND.items()}
    ours["loop_scan"] = timed(store, lambda: queries.calls_received(ch, *scan(data), limit=20_000))
    result["ours"] = ours
    result["pages"] = {name: timed(store, partial(question, ch, data)) for name, question in PAGES.items()}
    if not chosen.ours:
        result["others"] = {name: compare(ch, store, data, rival, ours) for name, rival in RIVALS.items()}
    status = Path(f"/proc/{store.process.pid}/status").read_text()
    result["store_peak_rss_mib"] = int(status.split("VmHWM:")[1].split()[0]) // 1024
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if result["exact"]["rollup_is_calls"] else 1


def scan(data: Data) -> tuple[datetime, datetime]:
    """What one look of the loop detector reads: the calls that came in during the last minute and its overlap."""
    return data.end - timedelta(seconds=65), data.end


if __name__ == "__main__":
    sys.exit(main())
