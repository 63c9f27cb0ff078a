"""The short way of our own spans agrees with the long one, value by value."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collectors.otlp import own
from collectors.otlp.attributes import Attributes, read_value
from collectors.otlp.own import Origin
from collectors.otlp.spans import Span
from spendwatch import semconv
from spendwatch.calls import LLMCall
from tests.clickhouse import builders
from tests.collectors.otlp import otlp

AT = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
NAMES = [*own._BLANK, "spendwatch.tags.extra.tier", "spendwatch.attributes.web_searches", "llm.usage.total_tokens"]
RIGHT: dict[type, st.SearchStrategy[Any]] = {
    str: st.sampled_from(["", "openai", "0.0021344", "-1", "1e9", "NaN", "reported", "error", "a" * 64, "é"]),
    int: st.sampled_from([0, 1, 443, 2**40, -1]),
    bool: st.booleans(),
    float: st.sampled_from([0.0, 0.25, 1.5e9, -0.5]),
    list: st.sampled_from([[], ["stop"], ["search:ab:cd", "a:b:c:d", "x"], ["stop", 1]]),
}
KINDS = dict(zip(own._NAMES, own._TYPES, strict=True))
ANY = st.one_of(*RIGHT.values())


def _values(wild: bool) -> st.SearchStrategy[dict[str, Any]]:
    def of(name: str) -> st.SearchStrategy[Any]:
        return ANY if wild else RIGHT[KINDS.get(name, str)]

    return st.lists(st.sampled_from(NAMES), unique=True).flatmap(
        lambda names: st.fixed_dictionaries({"gen_ai.provider.name": st.just("openai")} | {n: of(n) for n in names})
    )


def _span(attributes: dict[str, object], resource: Mapping[str, object]) -> Span:
    return Span(
        trace_id="1" * 32, span_id="2" * 16, parent_span_id=None, name="chat", start_ns=1, end_ns=2, failed=False,
        attributes=attributes, scope="spendwatch", resource=resource,
    )  # fmt: skip


def _long_way(origin: Origin, attributes: dict[str, object]) -> LLMCall:
    call = semconv.from_attributes(
        attributes, trace_id="1" * 32, span_id="2" * 16, parent_span_id=None, started_at=AT, duration_us=7,
        resource=origin.resource,
    )  # fmt: skip
    return origin.tagged(call)


@given(
    attributes=st.booleans().flatmap(_values),
    resource=st.sampled_from(
        [{}, {"service.name": "checkout"}, {"spendwatch.tags.team": "search", "spendwatch.tags.project": "other"}]
    ),
)
def test_both_ways_give_the_same_call(attributes: dict[str, object], resource: dict[str, object]) -> None:
    origin = Origin(resource, "shop")
    expected: LLMCall | str
    try:
        expected = _long_way(origin, attributes)
    except KeyError as error:
        expected = str(error)
    found: LLMCall | str
    try:
        found = origin.call(_span(attributes, resource), AT, 7)
    except KeyError as error:
        found = str(error)
    assert found == expected


@given(sent=builders.priced_calls)
def test_a_call_that_the_sdk_may_send_takes_the_short_way(sent: Any) -> None:
    origin = Origin({}, "shop")
    attributes: dict[str, object] = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in semconv.to_attributes(sent.call).items()
    }
    assert origin._ordinary(_span(attributes, {}), AT, 7) == _long_way(origin, attributes)


_any_value = st.one_of(
    st.text(max_size=140), st.just("é" * 2000), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(),
    st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=3),
)  # fmt: skip
_pairs = st.lists(
    st.tuples(
        st.sampled_from(["gen_ai.response.id", "spendwatch.tags.team", "content", "k" * 130, "", "ü"]), _any_value
    )
)


def _plain_read(items: list[bytes]) -> dict[str, object]:
    out = {}
    for item in items:
        pair = KeyValue.FromString(item)
        value = read_value(pair.value)
        if pair.key != "content" and value is not None:
            out[pair.key] = value
    return out


@given(batches=st.lists(_pairs, max_size=4))
def test_remembered_attributes_are_read_as_protobuf_reads_them(batches: list[list[tuple[str, object]]]) -> None:
    reader = Attributes(lambda name: name != "content")
    for pairs in [*batches, *batches]:
        items = [KeyValue(key=key, value=otlp.any_value(value)).SerializeToString() for key, value in pairs]
        assert reader.read(items, {}) == _plain_read(items)


@given(value=_any_value, at=st.integers(0, 60), byte=st.integers(0, 255), cut=st.integers(0, 20))
def test_no_damage_is_read_as_something_else(value: object, at: int, byte: int, cut: int) -> None:
    whole = KeyValue(key="spendwatch.tags.team", value=otlp.any_value(value)).SerializeToString()
    damaged = bytearray(whole)[: len(whole) - cut]
    if damaged:
        damaged[at % len(damaged)] = byte
    reader = Attributes(lambda name: True)
    reader.read([whole], {})
    expected: dict[str, object] | str
    try:
        expected = _plain_read([bytes(damaged)])
    except DecodeError:
        expected = "broken"
    found: dict[str, object] | str
    try:
        found = reader.read([bytes(damaged)], {})
    except DecodeError:
        found = "broken"
    assert found == expected


def test_what_is_remembered_is_bounded() -> None:
    reader = Attributes(lambda name: not name.startswith("content"))
    items = [KeyValue(key=f"name{n}", value=AnyValue(string_value=f"v{n}")).SerializeToString() for n in range(30_000)]
    items += [KeyValue(key=f"content{n}", value=AnyValue(int_value=n)).SerializeToString() for n in range(30_000)]
    reader.read(items, {})
    found = reader.read(items, {})
    assert len(found) == 30_000
    assert len(reader._known) <= 20_000
    assert len(reader._texts) <= 4_000
    assert len(reader._unwanted) <= 4_000


@pytest.mark.parametrize("secret", ["my prompt " * 3])
def test_content_is_not_even_remembered(secret: str) -> None:
    reader = Attributes(lambda name: name != "gen_ai.input.messages")
    item = KeyValue(key="gen_ai.input.messages", value=AnyValue(string_value=secret)).SerializeToString()
    assert reader.read([item, item], {}) == {}
    assert secret.encode() not in repr((reader._known, reader._texts, reader._unwanted)).encode()
