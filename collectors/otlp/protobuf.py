"""OTLP/protobuf: ExportTraceServiceRequest -> spans.

Each span is decoded alone, so that memory is bounded by the largest span. Never here: where the spans lie, what a span
means.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError

from collectors.otlp.attributes import Attributes
from collectors.otlp.limits import Limits
from collectors.otlp.sections import EXPECTED, TODO, Section, sections
from collectors.otlp.spans import Rejected, Span, Wanted, text
from collectors.otlp.wire import ERROR, SPAN
from spendwatch.errors import ReadError

# What was learnt of attributes serves the next requests too.
attributes_of = lru_cache(maxsize=4)(Attributes)


class Spans:
    """The spans of a request's sections by number, each decoded when it is asked for."""

    def __init__(self, body: bytes, found: Sequence[Section], *, limits: Limits, wanted: Wanted) -> None:
        self._body = body
        self._limits = limits
        self._attributes = attributes_of(wanted)
        self._places = [(section, start, end) for section in found for start, end in section.places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Span | Rejected:
        """One span, Rejected when it is too large. Raises ReadError when it is none."""
        _, start, end = self._places[number]
        if end - start > self._limits.span:
            return Rejected(f"a span of {end - start} bytes, expected at most {self._limits.span}")
        return self.plain(number)

    def plain(self, number: int) -> Span:
        """One span, whatever its size. Raises ReadError when it is none."""
        section, start, end = self._places[number]
        return span(self._body, start, end, section, self._attributes)


def read(body: bytes, *, limits: Limits, wanted: Wanted, resource_wanted: Wanted) -> Iterator[Span | Rejected]:
    """The spans of a request, one by one. Raises ReadError (TooMuchError beyond a limit) when the body is not one."""
    for section in sections(body, limits=limits, resource_wanted=resource_wanted):
        spans = Spans(body, [section], limits=limits, wanted=wanted)
        yield from (spans[number] for number in range(len(spans)))


def span(body: bytes, start: int, end: int, section: Section, attributes: Attributes) -> Span:
    """One span, body[start:end]. Raises ReadError."""
    try:
        decoded = SPAN.FromString(body[start:end])
        values = attributes.read(decoded.attributes, {})
    except DecodeError as error:
        raise ReadError(f"{EXPECTED}, found a broken Span at byte {start} ({error}). {TODO}") from None
    parent = decoded.parent_span_id
    return Span(
        trace_id=decoded.trace_id.hex(),
        span_id=decoded.span_id.hex(),
        parent_span_id=parent.hex() if len(parent) == 8 and any(parent) else None,
        name=text(decoded.name),
        start_ns=decoded.start_time_unix_nano,
        end_ns=decoded.end_time_unix_nano,
        failed=decoded.status.code == ERROR,
        status_message=text(decoded.status.message) if decoded.status.code == ERROR else "",
        attributes=values,
        scope=section.scope,
        resource=section.resource,
    )
