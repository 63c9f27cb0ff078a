"""Rows that come as a table meet what is stored, and each other, as single calls do."""

from collections.abc import Sequence
from datetime import datetime

import pytest

from collectors.otlp.answers import PROTOBUF
from collectors.otlp.limits import Limits
from collectors.otlp.reading import Reader
from spendwatch.clickhouse import rows
from spendwatch.clickhouse.batch import Batch
from spendwatch.clickhouse.client import Connection
from spendwatch.prices import packaged
from tests.clickhouse.builders import RECEIVED
from tests.collectors.otlp import otlp
from tests.collectors.otlp.test_bulk import NOW, foreign, ordinary, own

MANY = 30


def batch(body: bytes, *, together: bool) -> Batch:
    reader = Reader(Limits(), bulk_from=1 if together else 10**9)
    reading = reader.read(
        body, content_type=PROTOBUF, encoding="", project="shop", book=packaged(), now=NOW, take=lambda size: None
    )
    assert bool(reading.batch.tables) == together
    return reading.batch


def store(ch: Connection, batches: Sequence[Batch], received_at: datetime = RECEIVED) -> None:
    whole = Batch.join(batches)
    rows.insert(ch, whole.calls, received_at=received_at, tables=whole.tables)


def stored(ch: Connection) -> list[tuple[object, ...]]:
    return ch.query(
        "stored",
        "SELECT call_id, revision, source, project, session_id, lower(hex(span_id)), response_id, input_tokens, "
        "list_cost, effective_cost, cost_basis, attributes FROM llm_calls FINAL ORDER BY call_id",
    )


OURS = own([ordinary(n) for n in range(MANY)])
LATER = own([ordinary(n) for n in range(MANY // 2, MANY + 10)])
THEIRS = otlp.request(
    [
        foreign("genai", {"gen_ai.response.id": None}, trace_id=f"{n + 1:032x}", span_id=f"{n + 500:016x}")
        for n in range(MANY)
    ]
).SerializeToString()
SAME_IDS = otlp.request(
    [foreign("genai", {"gen_ai.response.id": f"gen-{n}", "gen_ai.provider.name": "openrouter"}) for n in range(MANY)]
).SerializeToString()


@pytest.mark.parametrize(
    "sent",
    [
        [[OURS], [OURS]],
        [[OURS, OURS]],
        [[OURS], [LATER]],
        [[OURS, THEIRS]],
        [[OURS], [THEIRS]],
        [[OURS, SAME_IDS]],
        [[SAME_IDS], [OURS, LATER]],
    ],
    ids=["again", "twice", "overlapping", "others in it", "others later", "others' replies", "others first"],
)
def test_a_table_is_stored_as_its_calls_one_by_one(clickhouse: Connection, sent: list[list[bytes]]) -> None:
    found = []
    for together in (False, True):
        clickhouse.command("empty", "TRUNCATE TABLE llm_calls")
        for bodies in sent:
            store(clickhouse, [batch(body, together=together) for body in bodies])
        found.append(stored(clickhouse))
    assert found[0] == found[1]
    assert len(found[0]) >= MANY


def test_what_meets_nothing_is_written_as_it_is(clickhouse: Connection) -> None:
    """Also beside single calls, and over two months."""
    old = own([ordinary(n, started_at=NOW.replace(month=10)) for n in range(100, 100 + MANY)])
    store(clickhouse, [batch(OURS, together=True), batch(old, together=True), batch(LATER, together=False)])
    assert len(stored(clickhouse)) == 2 * MANY + 10
