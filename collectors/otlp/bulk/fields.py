"""Encoded spans -> where their fields lie, for all spans at the same time.

A span's fields are found one after the other, but the nth field of every span in one step of numpy. What the
OpenTelemetry encoders never write (a field twice, a number in five bytes, a tag unknown to us) makes a span `odd`: it
is left to the general way, which knows what to think of it. So nothing here has to be refused or repaired. Never here:
what a field means.
"""

from dataclasses import dataclass

import numpy as np

from collectors.otlp.bulk.octets import Body, Bytes, Index, Mask

# The tags of opentelemetry/proto/trace/v1/trace.proto's Span: field number << 3 | wire type.
_TRACE_ID, _SPAN_ID, _PARENT, _NAME, _START, _END, _ATTRIBUTE, _STATUS = 0x0A, 0x12, 0x22, 0x2A, 0x39, 0x41, 0x4A, 0x7A
_FLAGS = 0x85
"""The first of two bytes of a tag: flags, 4 bytes."""

_ODD, _LENGTH, _EIGHT, _ONE, _FOUR = range(5)
_SIZES = np.array([-1, 0, 8, 1, 4])
_KINDS = np.zeros(256, np.uint8)
_KINDS[[_TRACE_ID, _SPAN_ID, 0x1A, _PARENT, _NAME, _ATTRIBUTE, 0x5A, 0x6A, _STATUS]] = _LENGTH
_KINDS[[_START, _END]] = _EIGHT
_KINDS[[0x30, 0x50, 0x60, 0x70]] = _ONE
_KINDS[_FLAGS] = _FOUR

_MAX_FIELDS = 400
"""Rounds, that is. An agent's span with a long conversation in it has some hundred attributes."""


@dataclass(slots=True)
class Part:
    """One field of each span: where its content begins (-1: not sent) and its bytes."""

    starts: Index
    lengths: Index


@dataclass(slots=True)
class Fields:
    """The fields of spans. `rows` of the attributes: whose they are."""

    odd: Mask
    trace_id: Part
    span_id: Part
    parent: Part
    name: Part
    start: Part
    end: Part
    status: Part
    rows: Index
    starts: Index
    ends: Index


def fields(body: Body, starts: Index, ends: Index) -> Fields:
    """The fields of the spans body[start:end]."""
    count = len(starts)
    odd = np.zeros(count, np.bool_)
    found: list[tuple[Index, Bytes, Index, Index]] = []
    rows: Index = np.arange(count)
    at, stop = starts, ends
    for _ in range(_MAX_FIELDS):
        more = at < stop
        if not more.all():
            rows, at, stop = rows[more], at[more], stop[more]
        if not rows.size:
            break
        tag = body.octets.take(at)
        kind = _KINDS.take(tag)
        content, length = delimited(body, at + 1)
        if not (kind == _LENGTH).all():
            content = np.where(kind == _LENGTH, content, at + np.where(kind == _FOUR, 2, 1))
            length = np.where(kind == _LENGTH, length, _SIZES.take(kind))
            # A number of one byte has no high bit; flags' second tag byte is 1.
            second = body.octets.take(at + 1)
            length[(kind == _ONE) & (second >= 0x80)] = -1
            length[(kind == _FOUR) & (second != 1)] = -1
        end = content + length
        wrong = (length < 0) | (end > stop)
        if wrong.any():
            odd[rows[wrong]] = True
            right = ~wrong
            rows, stop, tag = rows[right], stop[right], tag[right]
            content, end = content[right], end[right]
        found.append((rows, tag, content, end))
        at = end
    else:
        odd[rows] = True
    if not found:
        none = np.empty(0, np.int64)
        found.append((none, none.astype(np.uint8), none, none))
    row, tag, content, end = (np.concatenate(parts) for parts in zip(*found, strict=True))

    def part(wanted: int) -> Part:
        places = np.flatnonzero(tag == wanted)
        out = Part(np.full(count, -1, np.int64), np.zeros(count, np.int64))
        whose = row[places]
        out.starts[whose] = content[places]
        out.lengths[whose] = end[places] - content[places]
        if len(places) > count or (np.bincount(whose, minlength=count) > 1).any():
            odd[np.bincount(whose, minlength=count) > 1] = True
        return out

    attributes = np.flatnonzero(tag == _ATTRIBUTE)
    return Fields(
        trace_id=part(_TRACE_ID),
        span_id=part(_SPAN_ID),
        parent=part(_PARENT),
        name=part(_NAME),
        start=part(_START),
        end=part(_END),
        status=part(_STATUS),
        rows=row[attributes],
        starts=content[attributes],
        ends=end[attributes],
        odd=odd,
    )


def delimited(body: Body, at: Index) -> tuple[Index, Index]:
    """Where the content begins whose length stands at these places, and that length; -1 where it is beyond 2 MiB."""
    first = body.at(at)
    long = first >= 0x80
    if not long.any():
        return at + 1, first
    second = body.at(at + 1)
    length = np.where(long, first & 0x7F | (second & 0x7F) << 7, first)
    longer = long & (second >= 0x80)
    start = at + 1 + long
    if longer.any():
        third = body.at(at + 2)
        length = np.where(longer, np.where(third < 0x80, length | third << 14, -1), length)
        start = start + longer
    return start, length
