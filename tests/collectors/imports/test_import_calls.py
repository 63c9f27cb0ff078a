"""`manage.py import_calls` with real files into the real store: what a row becomes, and what an interruption loses."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.core.management import CommandError, call_command
from pyarrow import parquet

from collectors.imports import calls, load, mapping
from collectors.imports.models import Import
from collectors.models import Project
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.rollup import roll
from spendwatch.errors import StoreError

AT = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "started_at": (AT + timedelta(seconds=number)).isoformat(),
        "duration_us": 1_500_000,
        "provider_name": "openai",
        "request_model": "gpt-4o-mini",
        "response_id": f"chatcmpl-{number:06d}",
        "input_tokens": 1200,
        "cache_read_input_tokens": 1000,
        "output_tokens": 50,
        "team": "search",
        "prompt": "secret",
        **changes,
    }


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.name.removesuffix(".gz").endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())
    else:
        path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def run(path: Path, **options: Any) -> str:
    out = io.StringIO()
    call_command("import_calls", str(path), **{"project": "history", **options}, stdout=out)
    return out.getvalue()


def stored(clickhouse: Connection, columns: str = "count(), sum(effective_cost), countDistinct(response_id)") -> Any:
    return clickhouse.query("stored", f"SELECT {columns} FROM llm_calls FINAL")


def rejects(path: Path) -> list[list[str]]:
    with path.with_name(f"{path.name}.rejects.csv").open() as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("name", ["calls.csv", "calls.csv.gz", "calls.jsonl", "calls.ndjson", "calls.parquet"])
def test_a_file_of_calls_is_imported_once_however_often(
    name: str, tmp_path: Path, project: str, clickhouse: Connection
) -> None:
    path = write(tmp_path / name, [row(n) for n in range(1, 101)])
    assert "imported 100 calls into project history" in run(path)
    expected = [(100, Decimal("0.0135"), 100)]
    assert stored(clickhouse) == expected
    assert "was imported" in run(path)
    assert "imported 100 calls" in run(path, again=True)
    # Under another name it is another file, with the same calls in it.
    assert "imported 100 calls" in run(write(tmp_path / f"copy-{name}", [row(n) for n in range(1, 101)]))
    assert stored(clickhouse) == expected
    assert stored(clickhouse, "DISTINCT project, team, source, cost_basis, provider_name, duration_us") == [
        ("history", "search", "csv", "listed", "openai", 1_500_000)
    ]
    roll(clickhouse)
    assert clickhouse.query("hourly", "SELECT sum(calls), sum(effective_cost) FROM llm_calls_hourly") == [
        (100, Decimal("0.0135"))
    ]
    assert not list(tmp_path.glob("*.rejects.csv"))


def test_what_no_column_of_ours_names_does_not_come_in(tmp_path: Path, project: str, clickhouse: Connection) -> None:
    run(write(tmp_path / "calls.jsonl", [row(), row(2, input_tokens="many")]))
    assert "secret" not in str(stored(clickhouse, "toString(tuple(*))"))
    assert "secret" not in (tmp_path / "calls.jsonl.rejects.csv").read_text()


def test_columns_may_be_named_as_in_semconv(tmp_path: Path, project: str, clickhouse: Connection) -> None:
    named = {
        "started_at": "2026-11-20 12:00:01.5",
        "gen_ai.system": "Anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.response.id": "msg_1",
        "gen_ai.usage.input_tokens": 1400,
        "gen_ai.usage.cache_read.input_tokens": 1000,
        "gen_ai.usage.cache_creation.input_tokens": 300,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.conversation.id": "s-1",
        "gen_ai.response.finish_reasons": '["end_turn"]',
        "spendwatch.cost.reported": "0.0021344",
    }
    run(write(tmp_path / "calls.csv", [named]))
    assert stored(
        clickhouse,
        "provider_name, input_tokens, cache_write_input_tokens, session_id, finish_reason, effective_cost, cost_basis, "
        "toUnixTimestamp64Milli(started_at)",
    ) == [("anthropic", 1400, 300, "s-1", "end_turn", Decimal("0.0021344"), "reported", 1763640001500 + 31536000000)]


def test_a_table_exported_from_llm_calls_comes_back_equal(tmp_path: Path, project: str, clickhouse: Connection) -> None:
    rich = row(
        1, response_model="gpt-4o-mini-2024-07-18", serving_provider="Azure", server_port=443, http_status=200,
        streamed=True, finish_reason="stop", session_id="s-1", user_id="u-1", agent="crawler", feature="index",
        environment="production", key_hash="ab" * 32, service_name="checkout", attributes={"note": "kept"},
        trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", time_to_first_chunk_us=250_001,
        reasoning_output_tokens=20, reported_cost="0.000135", is_byok=False, status="aborted", source="sdk",
    )  # fmt: skip
    settled = row(2, response_id="gen-1763769600-Ab3", effective_cost="0.5", cost_basis="settled", source="broadcast")
    run(write(tmp_path / "calls.jsonl", [rich, settled]))
    facts = (
        "* EXCEPT (received_at, stored_at, revision)"
        " REPLACE (toString(started_at) AS started_at, toString(attributes) AS attributes)"
    )
    before = stored(clickhouse, facts)
    # The query of docs/import.md.
    columns = [
        name for (name,) in clickhouse.query("names", "SELECT name FROM system.columns WHERE table = 'llm_calls'")
    ]
    ids = {name: f"lower(hex({name}))" for name in ("trace_id", "span_id", "parent_span_id")}
    values = ", ".join(f"toString({ids.get(name, name)})" for name in columns)
    exported = clickhouse.query("export", f"SELECT {values} FROM llm_calls FINAL")
    clickhouse.command("empty", "TRUNCATE TABLE llm_calls")
    again = [dict(zip(columns, values, strict=True)) for values in exported]
    assert "imported 2 calls" in run(write(tmp_path / "again.jsonl", again))
    assert stored(clickhouse, facts) == before
    assert sorted(stored(clickhouse, "status, cost_basis, effective_cost, source, attributes['note']")) == [
        ("aborted", "reported", Decimal("0.000135"), "sdk", "kept"),
        ("ok", "settled", Decimal("0.5"), "broadcast", ""),
    ]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no time": ({"started_at": ""}, "started_at: expected when the call started, found nothing"),
    "no such time": ({"started_at": "yesterday"}, "started_at: expected a time as ISO 8601"),
    "long ago": ({"started_at": "1999-12-31T00:00:00"}, "started_at: expected a time from 2020 to tomorrow"),
    "to come": ({"started_at": "2999-12-31T00:00:00"}, "started_at: expected a time from 2020 to tomorrow"),
    "no tokens": ({"input_tokens": "many"}, "input_tokens: expected a whole number of at least 0, found 'many'"),
    "negative": ({"output_tokens": "-5"}, "output_tokens: expected a whole number"),
    "no money": ({"reported_cost": "1,50"}, "reported_cost: expected an amount in USD from 0 to 100000, found '1,50'"),
    "too much": ({"reported_cost": "1000000"}, "reported_cost: expected an amount in USD"),
    "negative money": ({"reported_cost": "-0.1"}, "reported_cost: expected an amount in USD"),
    "no flag": ({"is_byok": "perhaps"}, "is_byok: expected true or false, found 'perhaps'"),
    "no status": ({"status": "meh"}, "status: expected ok, error or aborted, found 'meh'"),
    "no identity": ({"response_id": ""}, "response_id, or trace_id and span_id: expected one of them"),
    "no trace": ({"trace_id": "xyz", "span_id": "1"}, "trace_id: expected 32 hex digits, found 'xyz'"),
    "no model": ({"provider_name": "", "request_model": ""}, "provider_name: expected who was called, or a model"),
    "no basis": ({"effective_cost": "1", "cost_basis": "guessed"}, "cost_basis: expected unpriced, listed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["calls.csv", "calls.jsonl"])
def test_a_bad_row_is_told_with_its_line_and_reason_and_the_others_are_imported(
    name: str, tmp_path: Path, project: str, clickhouse: Connection
) -> None:
    columns = {column: "" for changes, _ in BAD.values() for column in changes if column not in row()}
    rows = [{**row(n), **columns, **changes} for n, (changes, _) in enumerate(BAD.values(), 1)]
    path = write(tmp_path / name, [{**row(900), **columns}, *rows, {**row(901), **columns}])
    assert f"imported 2 calls into project history; {len(BAD)} could not be taken" in run(path)
    assert stored(clickhouse)[0][0] == 2
    header, *found = rejects(path)
    assert header == ["place", "reason", "row"]
    first_line = 3 if name.endswith(".csv") else 2
    for n, ((_, reason), (place, said, shown)) in enumerate(zip(BAD.values(), found, strict=True)):
        assert place == f"row {n + 2}, line {first_line + n}"
        assert said.startswith(reason), said
        assert "gpt-4o-mini" in shown or BAD_WITHOUT_MODEL in said


BAD_WITHOUT_MODEL = "provider_name: expected who was called"


@pytest.mark.parametrize(
    ("name", "content", "reasons"),
    [
        (
            "calls.csv",
            "started_at,request_model,response_id\n2026-11-20,m,a,extra\n2026-11-20,m,b\n\n2026-11-20,\xff,c\n"
            '2026-11-20,"m\n2",d\n2026-11-20,m,"e',
            ["expected 3 columns, found 4", "expected a row of CSV", "expected a row of CSV"],
        ),
        (
            "calls.jsonl",
            '{"started_at": "2026-11-20", "request_model": "m", "response_id": "b"}\n{"x": \n\n[1]\n'
            + "[" * 100_000
            + "\n"
            '{"started_at": 1795176000, "request_model": "m", "response_id": "d"}\n' + " " * 1_100_000 + "{}\n",
            ["expected a JSON object, found that it is none", "expected a JSON object, found a list",
             "expected a JSON object, found that it is none", "expected a line of at most 1048576 bytes"],
        ),
    ],
)  # fmt: skip
def test_a_row_that_is_none_does_not_stop_the_others(
    name: str, content: str, reasons: list[str], tmp_path: Path, project: str, clickhouse: Connection
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    assert "imported 2 calls" in run(path)
    assert stored(clickhouse, "response_id") == [("b",), ("d",)]
    found = [said for _, said, _ in rejects(path)[1:]]
    assert len(found) == len(reasons)
    for said, reason in zip(found, reasons, strict=True):
        assert said.startswith(reason), said


def test_a_file_that_is_not_what_its_name_says_is_refused_whole(
    tmp_path: Path, project: str, clickhouse: Connection
) -> None:
    (tmp_path / "calls.parquet").write_text("not parquet")
    (tmp_path / "calls.xlsx").write_text("x")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name, reason in (
        ("calls.parquet", "expected a Parquet file"),
        ("calls.xlsx", "expected a file .csv, .jsonl, .ndjson"),
        ("missing.csv", "expected a file, found none"),
        ("other.csv", "expected columns for started_at, provider_name or request_model, response_id, or trace_id"),
    ):
        with pytest.raises(CommandError, match=reason):
            run(tmp_path / name)
    with pytest.raises(CommandError, match=r"expected the slug of a project, found 'nobody'\. There are: history"):
        run(write(tmp_path / "calls.csv", [row()]), project="nobody")
    assert stored(clickhouse)[0][0] == 0


def test_an_import_that_was_stopped_goes_on_and_loses_nothing(
    tmp_path: Path, project: str, clickhouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "BATCH_CALLS", 10)
    path = write(tmp_path / "calls.csv", [row(n, input_tokens="" if n % 7 else "bad") for n in range(1, 101)])
    inserts = 0
    insert = load.rows.insert

    def dies(*args: Any, **named: Any) -> None:
        nonlocal inserts
        inserts += 1
        if inserts in (4, 6):
            raise StoreError("ClickHouse is away.", permanent=True)
        insert(*args, **named)

    monkeypatch.setattr(load.rows, "insert", dies)
    said = []
    for _ in range(3):
        try:
            said.append(run(path))
        except CommandError as error:
            said.append(str(error))
    assert said[0] == "ClickHouse is away. Run the same command again to go on."
    assert said[1] == said[0]
    assert said[2].startswith("going on after row 40 (35 calls were imported)\nimported 86 calls")
    assert inserts == 12  # nothing that was stored is read again
    assert stored(clickhouse)[0][0] == 86
    assert [place for place, *_ in rejects(path)[1:]] == [f"row {n}, line {n + 1}" for n in range(7, 101, 7)]


def test_what_died_between_storing_and_remembering_is_done_again_and_changes_nothing(
    tmp_path: Path, project: str, clickhouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "BATCH_CALLS", 10)
    path = write(tmp_path / "calls.jsonl", [row(n, input_tokens=100 if n % 7 else "bad") for n in range(1, 51)])
    save = Import.save
    saves = 0

    def dies(self: Import, *args: Any, **named: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 4:
            raise KeyboardInterrupt
        save(self, *args, **named)

    monkeypatch.setattr(Import, "save", dies)
    with pytest.raises(CommandError, match=r"stopped\. Run the same command again to go on\."):
        run(path)
    assert "imported 43 calls into project history; 7 could not be taken" in run(path)
    assert stored(clickhouse)[0][0] == 43
    # The rejects of the batch that was done twice stand there once.
    assert [place for place, *_ in rejects(path)[1:]] == [f"row {n}, line {n}" for n in range(7, 51, 7)]


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    tmp_path: Path, project: str, clickhouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = load.rows.insert
    tries = 0

    def away(*args: Any, **named: Any) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StoreError("ClickHouse is away.", retry_after_s=0.01)
        insert(*args, **named)

    monkeypatch.setattr(load.rows, "insert", away)
    assert "imported 1 calls" in run(write(tmp_path / "calls.csv", [row()]))
    assert stored(clickhouse)[0][0] == 1


def test_another_file_of_the_same_name_starts_anew(tmp_path: Path, project: str, clickhouse: Connection) -> None:
    run(write(tmp_path / "calls.csv", [row(1)]))
    assert "imported 2 calls" in run(write(tmp_path / "calls.csv", [row(1), row(2)]))
    assert stored(clickhouse)[0][0] == 2


def test_rows_without_an_id_are_told_apart_by_columns_of_theirs(
    tmp_path: Path, project: str, clickhouse: Connection
) -> None:
    rows = [{**row(n, response_id=""), "row_no": n} for n in range(1, 6)]
    path = write(tmp_path / "calls.csv", rows)
    for _ in range(2):
        assert "imported 5 calls" in run(path, identify_by="row_no", again=True)
    assert stored(clickhouse, "count(), countDistinct(span_id)") == [(5, 5)]


def test_calls_that_would_be_deleted_at_once_are_refused(
    tmp_path: Path, project: str, clickhouse: Connection, settings: Any
) -> None:
    settings.SPENDWATCH_RETENTION_DAYS = 30
    now = datetime.now(UTC)
    old = [row(n, started_at=(now - timedelta(days=days)).isoformat()) for n, days in enumerate((1, 29, 30, 31), 1)]
    path = write(tmp_path / "calls.csv", old)
    assert "imported 2 calls" in run(path)
    assert all("30 days that calls are kept" in said for _, said, _ in rejects(path)[1:])


def test_a_file_of_any_size_is_read_in_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    from collectors.imports.files import Source

    path = tmp_path / "calls.csv"
    with path.open("w") as file:
        file.write("started_at,request_model,response_id,prompt\n")
        for n in range(60_000):
            file.write(f"2026-11-20,m,{n},{'x' * 200}\n")
    source = Source(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.read(0)) == 60_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 12_000_000
    assert peak < 2_000_000
    assert source.done == path.stat().st_size


MAPPED: dict[str, tuple[str, list[dict[str, Any]], list[tuple[Any, ...]]]] = {
    "openrouter": (
        "log.csv",
        [
            {
                "generation_id": "gen-1763769600-Ab3", "created_at": "2026-11-20 12:00:00.123",
                "cost_total": "0.0021344", "cost_web_search": "0", "cost_cache": "-0.002", "cost_file_processing": "0",
                "byok_usage_inference": "0", "tokens_prompt": "10240", "tokens_completion": "310",
                "tokens_reasoning": "0", "tokens_cached": "8192", "model_permaslug": "openai/gpt-4.1-mini",
                "provider_name": "Azure", "variant": "standard", "cancelled": "false", "streamed": "true", "user": "",
                "finish_reason_raw": "completed", "finish_reason_normalized": "stop", "generation_time_ms": "2460",
                "time_to_first_token_ms": "250", "api_key_disabled": "false", "api_key_name": "prod-chat",
                "app_name": "Shop", "num_search_results": "",
            },
            {
                "generation_id": "gen-1763769601-By", "created_at": "2026-11-20 12:00:01", "cost_total": "0.0009375",
                "byok_usage_inference": "0.01875", "tokens_prompt": "5200", "tokens_completion": "900",
                "model_permaslug": "anthropic/claude-sonnet-4.5", "cancelled": "true", "generation_time_ms": "10",
            },
        ],
        [
            ("gen-1763769600-Ab3", "openrouter", "Azure", 10240, 8192, 310, Decimal("0.0021344"), "reported", "ok",
             True, 2_460_000, 250_000, "stop", "csv"),
            ("gen-1763769601-By", "openrouter", "", 5200, None, 900, Decimal("0.0196875"), "reported", "aborted",
             False, 10_000, None, "", "csv"),
        ],
    ),
    "litellm": (
        "spend.jsonl",
        [
            {
                "request_id": "chatcmpl-1", "startTime": "2026-11-20T12:00:00Z", "spend": 0.000135,
                "prompt_tokens": 1200, "completion_tokens": 50, "total_tokens": 1250, "custom_llm_provider": "openai",
                "model": "gpt-4o-mini", "cache_hit": "False", "end_user": "", "user": "u-1", "status": "success",
                "api_base": "https://api.openai.com/v1",
            },
            {"request_id": "chatcmpl-1_cache_hit2", "startTime": "2026-11-20T12:01:00Z", "model": "gpt-4o-mini",
             "cache_hit": "True", "spend": 0, "prompt_tokens": 1200, "custom_llm_provider": "openai"},
        ],
        [
            ("chatcmpl-1", "openai", "", 1200, None, 50, Decimal("0.00021"), "listed", "ok", False, 0, None, "", "csv"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPPED)
def test_a_mapping_that_comes_with_the_server_reads_its_file(
    name: str, tmp_path: Path, project: str, clickhouse: Connection
) -> None:
    file, rows, expected = MAPPED[name]
    everything = {column: "" for item in rows for column in item}
    run(write(tmp_path / file, [{**everything, **item} for item in rows]), mapping=name)
    assert (
        stored(
            clickhouse,
            "response_id, provider_name, serving_provider, input_tokens, cache_read_input_tokens, output_tokens, "
            "effective_cost, cost_basis, status, streamed, duration_us, time_to_first_chunk_us, finish_reason, source",
        )
        == expected
    )
    assert not list(tmp_path.glob("*.rejects.csv"))


def test_a_mapping_of_ones_own_says_which_column_is_which(tmp_path: Path, project: str, clickhouse: Connection) -> None:
    (tmp_path / "ours.toml").write_text("""
input_includes_cache = false
identify_by = ["id"]
[columns]
started_at = "ts"
request_model = "llm"
input_tokens = ["usage.in", "in"]
cache_read_input_tokens = "usage.cached"
output_tokens = "usage.out"
reported_cost = "usd"
duration_us = "took"
[units]
started_at = "ms"
duration_us = "s"
[constants]
provider_name = "anthropic"
team = "search"
[attributes]
ticket = "ticket"
""")
    rows = [{"id": 7, "ts": 1795176000123, "llm": "claude-sonnet-4-5", "usage": {"in": 200, "cached": 1000, "out": 50},
             "usd": 0.1, "took": 1.25, "ticket": "T-1"}]  # fmt: skip
    assert "imported 1 calls" in run(write(tmp_path / "calls.jsonl", rows), mapping=str(tmp_path / "ours.toml"))
    assert stored(
        clickhouse,
        "toUnixTimestamp64Milli(started_at), input_tokens, cache_read_input_tokens, effective_cost, duration_us, team, "
        "attributes['ticket']",
    ) == [(1795176000123, 1200, 1000, Decimal("0.1"), 1_250_000, "search", "T-1")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[columns\n", "can't be read"),
        ("[columns]\nmodel = 'm'\n", "expected columns named operation_name.*found model"),
        ("[columns]\nrequest_model = 5\n", "expected request_model to be a column's name or a list"),
        ("[units]\nduration_us = 'h'\n", "expected units of s, ms, us, ns, found duration_us = 'h'"),
        ("input_includes_cache = 'maybe'\n", "expected input_includes_cache"),
        ("columns = 'a'\n", r"expected \[columns\] to be a table"),
    ],
)
def test_a_mapping_that_is_wrong_says_how(text: str, reason: str, tmp_path: Path, project: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(CommandError, match=reason):
        run(write(tmp_path / "calls.csv", [row()]), mapping=str(tmp_path / "m.toml"))
    with pytest.raises(CommandError, match="expected a mapping's file or one of litellm, openrouter, found 'nothing'"):
        run(tmp_path / "calls.csv", mapping="nothing")


def test_every_column_of_ours_is_one_of_llm_calls(clickhouse: Connection) -> None:
    there = {
        name for (name,) in clickhouse.query("columns", "SELECT name FROM system.columns WHERE table = 'llm_calls'")
    }
    assert set(mapping.COLUMNS) - there == {"cancelled"}
    assert Project._meta.app_label == Import._meta.app_label
