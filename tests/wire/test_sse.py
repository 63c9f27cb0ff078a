"""Server-sent events come out the same however their bytes are cut, and never cost more than their limit."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendwatch.wire.sse import LIMIT, Clipped, Event, LineSplitter, Splitter, run


def split(*pieces: bytes, limit: int = LIMIT) -> list[Event]:
    splitter = Splitter(limit)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.close()


def test_an_event_is_its_data_lines_joined() -> None:
    assert split(b"event: a\ndata: 1\ndata:2\ndata\n\ndata: 3\n\n") == [(b"a", b"1\n2\n"), (b"", b"3")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_way(end: bytes) -> None:
    stream = end.join(
        [b": comment", b"id: 7", b"event: x", b"data: {", b"data: }", b"", b"retry: 1", b"data: y", b"", b""]
    )
    assert split(stream) == [(b"x", b"{\n}"), (b"", b"y")]
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == [(b"x", b"{\n}"), (b"", b"y")]


def test_a_byte_order_mark_belongs_to_no_field() -> None:
    assert split(b"\xef\xbb\xbfevent: a\ndata: 1\n\n") == [(b"a", b"1")]


def test_what_the_end_cuts_off_is_handed_out_last() -> None:
    assert split(b"data: 1\n\ndata: [DONE]") == [(b"", b"1"), (b"", b"[DONE]")]


def test_a_blank_line_after_an_event_name_alone_makes_no_event() -> None:
    assert split(b"event: ping\n\ndata: 1\n\n") == [(b"", b"1")]


@given(
    st.lists(
        st.sampled_from([b"data: a", b"data:b", b"event: e", b":c", b"", b"x", "data: é中".encode()]), max_size=30
    ),
    st.lists(st.integers(1, 9), max_size=60),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_any_split_gives_the_same_events(lines: list[bytes], sizes: list[int], end: bytes) -> None:
    stream = end.join(lines)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    assert split(*pieces, stream[at:]) == split(stream)


def test_an_endless_line_takes_bounded_memory_and_keeps_its_two_ends() -> None:
    splitter = Splitter()
    tracemalloc.start()
    assert splitter.feed(b"data: first") == []
    block = b"x" * 1000
    for _ in range(20_000):
        assert splitter.feed(block) == []
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.2 * LIMIT
    assert peak < 2.5 * LIMIT
    ((_, data),) = splitter.feed(b"last\n\n")
    assert data.startswith(b"first")
    assert data.endswith(b"last")


def test_many_data_lines_of_one_event_take_bounded_memory_too() -> None:
    splitter = Splitter()
    for number in range(20_000):
        assert splitter.feed(b"data: line %d\n" % number) == []
    ((_, data),) = splitter.feed(b"\n")
    assert len(data) <= LIMIT
    assert data.startswith(b"line 0\nline 1\n")
    assert data.endswith(b"line 19999")


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"e"]), st.integers(0, 300)), max_size=6),
    st.lists(st.integers(1, 400), max_size=20),
    st.integers(60, 200),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_of_a_large_event_the_same_is_left_in_any_split(
    events: list[tuple[bytes, int]], sizes: list[int], limit: int, end: bytes
) -> None:
    stream = b"".join(
        (b"event: %s%s" % (name, end) if name else b"")
        + b'data: {"id": %d, "of": [{"x": 1}, "%s"], "usage": %d}' % (place, b"y" * size, place)
        + 2 * end
        for place, (name, size) in enumerate(events)
    )
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    found = split(*pieces, stream[at:], limit=limit)
    assert found == split(stream, limit=limit)
    assert {name for name, _ in found} == {name for name, _ in events}
    assert all(len(data) <= limit for _, data in found)


def test_the_first_members_of_a_large_event_come_before_what_is_left_of_it() -> None:
    large = b'{"type": "done", "response": {"id": "r", "tools": [{"a": "%s"}], "usage": {"n": 1}}}' % (b"z" * 2000)
    first, rest = split(b"event: e\ndata: %s\n\n" % large, limit=900)
    assert first == (b"e", b'{"type": "done", "response": {"id": "r"}}')
    assert rest[1].endswith(b'"usage": {"n": 1}}}')


def test_a_run_of_events_is_cut_out_whole() -> None:
    block = b": hello\n\nevent: a\ndata: 1\n\nevent: a\ndata: 2\n\nevent: a\ndata: 3\n\nevent: b\ndata: 4\n\n"
    assert run(block, b"event: a\ndata: ") == (b": hello\n\n", [b"1", b"2", b"3"], b"event: b\ndata: 4\n\n")
    assert run(block[9:-18], b"event: a\ndata: ") == (b"", [b"1", b"2", b"3"], b"")
    assert run(block, b"event: a\ndata: ", limit=18) is None
    assert run(block, b"data: ") is None


@given(st.lists(st.sampled_from([b"{}", b'{"a": 1}', b"", b" ", b"\r"]), max_size=20), st.integers(1, 9))
def test_lines_of_json_come_out_the_same_in_any_split(lines: list[bytes], size: int) -> None:
    stream = b"\n".join(lines)
    splitter = LineSplitter()
    events = [event for at in range(0, len(stream), size) for event in splitter.feed(stream[at : at + size])]
    assert events + splitter.close() == [(b"", line) for line in lines if line.strip()]


@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(9, 120))
def test_gathered_bytes_are_whole_up_to_the_limit_and_the_two_ends_beyond(pieces: list[bytes], limit: int) -> None:
    gathered = Clipped(limit)
    for piece in pieces:
        gathered.add(piece)
    whole = b"".join(pieces)
    clipped = gathered.clipped
    data = gathered.take()
    assert clipped == (len(whole) > limit)
    if clipped:
        assert len(data) == limit
        assert whole.startswith(data[: limit // 3])
        assert whole.endswith(data[limit // 3 :])
    else:
        assert data == whole
    assert gathered.length == 0
