"""Spans that are read together give the same rows as spans that are read one by one, whatever their bytes."""

import random
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from collectors.otlp.answers import PROTOBUF
from collectors.otlp.bulk.octets import Body, Interner
from collectors.otlp.limits import Limits
from collectors.otlp.reading import Reader, Reading
from spendwatch.calls import CallStatus, CostBasis, LLMCall, TokenUsage
from spendwatch.clickhouse.columns import TYPES
from spendwatch.clickhouse.rows import row_of
from spendwatch.clickhouse.table import Column, Numbers, Table, Texts
from spendwatch.errors import ReadError
from spendwatch.prices import PriceBook, packaged
from spendwatch.prices.book import ByName, Meter, Model, Rate
from tests.clickhouse import builders
from tests.collectors.otlp import otlp
from tests.collectors.otlp.test_call import DIALECTS, WHOLE

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
IN = {"prompt": "0.00000015", "completion": "0.0000006", "input_cache_read": "0.000000075", "internal_reasoning": "0.9"}


def _model(name: str, *rates: Rate, discount: str = "0") -> Model:
    return Model(name=name, rates=rates, version=f"made-{name}", discount=Decimal(discount))


PLAIN = {Meter.INPUT: Decimal("0.00000125"), Meter.OUTPUT: Decimal("0.00001")}
MODELS = {
    "gpt-4o": _model("gpt-4o", Rate(prices={**PLAIN, Meter.CACHE_READ: Decimal("0.000000312500005")})),
    "stepped": _model(
        "stepped",
        Rate(prices={**PLAIN, Meter.CACHE_WRITE: Decimal("0.0000015"), Meter.CACHE_WRITE_1H: Decimal("0.0000025")}),
        Rate(prices={Meter.INPUT: Decimal("0.0000025")}, above_input_tokens=1000),
        Rate(prices={Meter.OUTPUT: ((-1, Decimal("0.000015")), (2000, Decimal("0.00003")))}, tier="priority"),
    ),
    "dated": _model(
        "dated",
        Rate(prices={**PLAIN, Meter.REQUEST: Decimal("0.001"), Meter.WEB_SEARCH: Decimal("0.01")}),
        Rate(prices={Meter.INPUT: Decimal("0.0000000000000007")}, effective_from=NOW.date() - timedelta(days=30)),
        discount="0.123",
    ),
    "nightly": _model("nightly", Rate(prices=PLAIN), Rate(prices=PLAIN, hours=(time(1), time(7)))),
    "talking": _model("talking", Rate(prices={**PLAIN, Meter.INPUT_AUDIO: Decimal("0.1")})),
    "input-only": _model("input-only", Rate(prices={Meter.INPUT: Decimal("0.00000002")})),
    "huge": _model("huge", Rate(prices={Meter.INPUT: Decimal(1000), Meter.OUTPUT: Decimal(1000)})),
}
BOOK: PriceBook = packaged()
for _provider in ("openai", "anthropic", "openrouter"):
    BOOK = BOOK.with_catalogue(_provider, ByName(MODELS), effective_from=NOW - timedelta(days=400))
    BOOK = BOOK.with_catalogue(
        _provider, ByName({**MODELS, "gpt-4o": MODELS["stepped"]}), effective_from=NOW - timedelta(days=20, hours=5)
    )
BOOK = replace(BOOK, endpoints={("gpt-4o", "azure"): MODELS["stepped"], ("stepped", "azure"): MODELS["nightly"]})


def read(body: bytes, *, together: bool) -> Reading:
    reader = Reader(Limits(), bulk_from=1 if together else 10**9)
    how: Any = {"content_type": PROTOBUF, "encoding": "", "project": "shop", "book": BOOK, "now": NOW}
    reading = None
    for _ in range(2 if together else 1):  # what was learnt must not change what is read
        reading = reader.read(body, take=lambda size: None, **how)
    assert reading is not None
    return reading


def values(column: Column) -> list[Any]:
    """A column as a row has it."""
    if isinstance(column, Texts):
        octets, places = column.octets.tobytes(), zip(column.starts.tolist(), column.lengths.tolist(), strict=True)
        return [octets[start : start + length].decode() for start, length in places]
    if not isinstance(column, Numbers):
        return [column.values[code] for code in column.codes.tolist()]
    plain = [one.tobytes() for one in column.values] if column.values.dtype.kind == "V" else column.values.tolist()
    if column.known is None:
        return plain
    return [one if known else None for one, known in zip(plain, column.known.tolist(), strict=True)]


def rows(reading: Reading) -> list[dict[str, Any]]:
    """All rows of a reading in one order, without when it was received."""
    found = [dict(zip(TYPES, row_of(call, received_at=NOW), strict=True)) for call in reading.batch.calls]
    for table in reading.batch.tables:
        columns = {name: values(column) for name, column in table.columns.items()}
        found += [{name: columns[name][row] for name in TYPES} for row in range(table.rows)]
    for row in found:
        del row["received_at"]
    return sorted(found, key=lambda row: (row["trace_id"], row["span_id"], repr(row)))


def outcome(body: bytes, *, together: bool) -> object:
    """Everything that a request comes to."""
    try:
        reading = read(body, together=together)
    except ReadError as error:
        # Of several broken spans each way may come to another one first.
        return re.sub(r"\d+", "n", str(error).split("(", 1)[0])
    return rows(reading), sorted(reading.rejected), reading.ignored, reading.batch.unpriced


def same(body: bytes) -> None:
    """Assert that both ways agree."""
    assert outcome(body, together=True) == outcome(body, together=False)


def own(calls: Sequence[LLMCall], **resource: object) -> bytes:
    return otlp.request(
        [otlp.own_span(call) for call in calls], scope="spendwatch", resource=resource
    ).SerializeToString()


def ordinary(number: int, **facts: Any) -> LLMCall:
    """A call as the SDK sends them by the thousand."""
    own_facts: dict[str, Any] = {
        "trace_id": f"{number + 1:032x}",
        "span_id": f"{number + 1:016x}",
        "response_id": f"gen-{number}",
        "started_at": NOW - timedelta(seconds=number),
    }
    return replace(WHOLE, **{**own_facts, **facts})


def test_ordinary_spans_of_our_own_are_all_read_together() -> None:
    calls = [
        ordinary(
            n,
            request_model=("gpt-4o", "stepped", "unheard-of")[n % 3],
            serving_provider=None,
            usage=TokenUsage(input_tokens=100 * n, output_tokens=n, cache_read_input_tokens=7 * n),
            tags=replace(WHOLE.tags, session=f"s-{n % 7}", agent=f"a-{n % 3}"),
        )
        for n in range(200)
    ]
    body = own(calls, **{"service.name": "checkout"})
    same(body)
    reading = read(body, together=True)
    assert reading.batch.calls == []
    assert [table.rows for table in reading.batch.tables] == [200]


_costs = st.none() | st.sampled_from(["0", "0.0021344", "12.5", "99999.999999999999", "0.0000000000015", "1E-7"]).map(
    Decimal
)
_counts = st.none() | st.integers(0, 3000) | st.sampled_from([0, 1000, 1001, 2**32 - 1, 2**32, 2**40])
_facts = st.fixed_dictionaries(
    {},
    optional={
        "provider_name": st.sampled_from(["openrouter", "openai", "anthropic", "nobody"]),
        "request_model": st.sampled_from([None, *MODELS, "gpt-4o:free", "unheard-of"]),
        "response_model": st.sampled_from([None, "gpt-4o", "stepped"]),
        "serving_provider": st.sampled_from([None, "Azure", "Else"]),
        "service_tier": st.sampled_from([None, "default", "priority", "flex", "odd"]),
        "operation_name": st.sampled_from(["chat", "embeddings"]),
        "is_byok": st.none() | st.booleans(),
        "reported_cost": _costs,
        "upstream_cost": _costs,
        "listed_cost": _costs,
        "http_status": st.sampled_from([None, 200, 429]),
        "status": st.sampled_from(CallStatus),
        "started_at": st.integers(0, 3 * 86_400 * 10**6).map(lambda us: NOW - timedelta(days=21, microseconds=-us)),
        "response_id": st.sampled_from([None, "gen-1", "chatcmpl-é", "x" * 1500]),
        "attributes": st.sampled_from([{}, {"web_searches": "3"}, {"note": "n"}]),
        "usage": st.builds(
            TokenUsage, input_tokens=_counts, output_tokens=_counts, total_tokens=_counts,
            cache_read_input_tokens=_counts, cache_write_input_tokens=_counts, cache_write_1h_input_tokens=_counts,
            reasoning_output_tokens=_counts, input_audio_tokens=st.none() | st.integers(0, 9),
        ),
    },
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(facts=st.lists(_facts, min_size=1, max_size=8))
def test_costs_are_the_same_to_the_last_digit(facts: list[dict[str, Any]]) -> None:
    calls = []
    for number, some in enumerate(facts * 3):
        call = ordinary(number)
        basis = CostBasis.REPORTED if some.get("reported_cost") is not None else CostBasis.LISTED
        calls.append(replace(call, **{"cost_basis": basis, **some}))
    same(own(calls))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(sent=st.lists(builders.llm_calls, min_size=1, max_size=6))
def test_whatever_our_sdk_may_send_is_read_alike(sent: list[LLMCall]) -> None:
    same(own([*sent, *(ordinary(n) for n in range(5))], **{"spendwatch.tags.team": "search"}))


NAMES = sorted({name for _, attributes, _ in DIALECTS.values() for name in attributes})
_any = st.one_of(
    st.integers(-1, 5000), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(max_size=12),
    st.sampled_from(["", "gen-1", "gen-1:a", "openai", "0.5", "LLM", "12", "é", "x" * 140, "x" * 2000]),
    st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=3),
)  # fmt: skip


def foreign(name: str, changed: dict[str, object] | None = None, **how: Any) -> trace_pb2.Span:
    title, attributes, _ = DIALECTS[name]
    kept = {key: value for key, value in {**attributes, **(changed or {})}.items() if value is not None}
    return otlp.span(title, attributes=kept, at=NOW, **how)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_read_alike(dialect: str) -> None:
    spans = [foreign(dialect, duration_us=1000 * n, error=n % 5 == 4) for n in range(40)]
    for scope in ("", "openrouter", "spendwatch"):
        same(otlp.request(spans, scope=scope).SerializeToString())


def test_ordinary_spans_of_others_are_read_together() -> None:
    spans = [
        foreign("genai", {"gen_ai.usage.input_tokens": 1000 + n, "gen_ai.response.id": f"m{n}"}) for n in range(60)
    ]
    body = otlp.request(spans).SerializeToString()
    same(body)
    reading = read(body, together=True)
    assert [table.rows for table in reading.batch.tables] == [60]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(sorted(DIALECTS)), st.dictionaries(st.sampled_from(NAMES), st.none() | _any)),
        min_size=1, max_size=8,
    ),
    error=st.booleans(),
)  # fmt: skip
def test_whatever_others_may_send_is_read_alike(changes: list[tuple[str, dict[str, object]]], error: bool) -> None:
    spans = [foreign(name, changed, duration_us=1000 * n, error=error) for n, (name, changed) in enumerate(changes * 3)]
    same(otlp.request(spans).SerializeToString())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(seed=st.integers(0, 2**32), damages=st.integers(1, 6))
def test_damaged_bodies_are_read_or_refused_alike(seed: int, damages: int) -> None:
    chance = random.Random(seed)
    spans = [otlp.own_span(ordinary(n)) for n in range(6)] + [foreign(name) for name in ("genai", "openinference")]
    body = bytearray(otlp.request(spans, scope="spendwatch").SerializeToString())
    for _ in range(damages):
        at = chance.randrange(len(body))
        if chance.random() < 0.2:
            del body[at : at + chance.randrange(1, 9)]
        elif chance.random() < 0.3:
            body[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            body[at] = chance.choice([chance.randrange(256), body[at] ^ 0x80, 0])
    same(bytes(body))


def test_what_no_encoder_writes_is_read_alike() -> None:
    """Fields twice, numbers longer than needed, attributes twice, ids of another size, names that are not UTF-8."""
    plain = otlp.own_span(ordinary(1)).SerializeToString()
    odd = [
        plain,
        plain + b"\x0a\x10" + b"\x07" * 16,
        plain + b"\x39" + struct.pack("<Q", 1),
        plain.replace(b"\x12\x08", b"\x12\x88\x00", 1),
        plain + b"\x4a\x1b\x0a\x13gen_ai.response.id2\x12\x04\x0a\x02ab",
        plain + b"\x4a\x18\x0a\x12gen_ai.response.id\x12\x02\x0a\x00",
        plain + b"\x4a\x04\x0a\x02\xff\xfe",
        plain + b"\x4a\x00",
        plain + b"\x1a\x03a=1",
        plain + b"\x85\x01\x00\x01\x00\x00",
        plain + b"\x7a\x04\x12\x02no",
        plain + b"\x7a\x04\x18\x02\x18\x01",
        plain + b"\x2a\x02\xff\xfe",
        b"",
    ]
    for part in [_span(one) for one in odd]:
        scope = b"\x0a\x0c\x0a\x0aspendwatch" + part + part
        inner = b"\x12" + _length(scope) + scope
        same(b"\x0a" + _length(inner) + inner)


def _span(encoded: bytes) -> bytes:
    return b"\x12" + bytes([len(encoded) & 0x7F | 0x80, len(encoded) >> 7]) + encoded


def _length(body: bytes) -> bytes:
    return bytes([len(body) & 0x7F | 0x80, len(body) >> 7 & 0x7F | 0x80, len(body) >> 14])


def test_many_different_tags_are_read_alike() -> None:
    calls = [ordinary(n, tags=replace(WHOLE.tags, extra={f"k{n}": f"v{n}"})) for n in range(300)]
    same(own(calls))


@given(
    texts=st.lists(st.binary(max_size=70) | st.sampled_from([b"", b"\0", b"\0\0", b"a" * 32, b"a" * 33]), max_size=40)
)
def test_codes_stand_for_texts_and_nothing_else(texts: list[bytes]) -> None:
    seen = Interner(longest=64, capacity=30, slot_bits=4)
    body = Body(b"".join(texts) + b"more")
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(lengths) - lengths
    for _ in range(2):
        codes = seen.codes(body, starts, lengths).tolist()
        for text, code in zip(texts, codes, strict=True):
            if code >= 0:
                assert seen.texts[code] == text
            else:
                assert len(text) > 64 or seen.is_full


def test_a_block_of_rows_is_the_one_that_clickhouse_connect_writes() -> None:
    calls = read(own([ordinary(n) for n in range(3)]), together=False).batch.calls
    finished = [row_of(call, received_at=NOW) for call in calls]
    table = Table.of(finished)
    assert [tuple(row) for row in zip(*(values(table.columns[name]) for name in TYPES), strict=True)] == [
        tuple(row) for row in finished
    ]
    assert Table.join([table, table]).take(np.array([4, 0])).rows == 2
