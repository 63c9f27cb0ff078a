"""A body -> the priced calls in it: decompress, decode, translate, value. Pure but for the room it takes.

Runs in a reader's thread. One request is read whole before anything of it goes further, so that a body that breaks in
its middle leaves nothing half-done. Spans of a larger request are read together (bulk/) where that can't be told from
reading each by itself. Never here: HTTP, storing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from collectors.otlp import call, dialects, otlp_json, protobuf
from collectors.otlp.answers import JSON, PROTOBUF
from collectors.otlp.body import decompress
from collectors.otlp.bulk.reader import MIN_SPANS, BulkReader, Request
from collectors.otlp.limits import Limits
from collectors.otlp.sections import sections
from collectors.otlp.spans import Rejected, Span
from spendwatch.calls import PricedCall
from spendwatch.clickhouse.batch import Batch
from spendwatch.prices import PriceBook, value

CONTENT_TYPES = (JSON, PROTOBUF)


@dataclass(slots=True)
class Reading:
    """What one request holds. `rejected`: why spans can't be stored, one reason each."""

    batch: Batch = field(default_factory=Batch)
    received: int = 0
    rejected: list[str] = field(default_factory=list)

    @property
    def ignored(self) -> int:
        """Spans that are not a call to a model."""
        return self.received - len(self.batch) - len(self.rejected)


@dataclass(slots=True)
class Reader:
    """Reads requests, in any thread. What it learns of one serves the next."""

    limits: Limits
    bulk_from: int = MIN_SPANS
    """Spans of a request from which on they are read together."""
    bulk: BulkReader = field(default_factory=BulkReader)

    def read(
        self,
        body: bytes,
        *,
        content_type: str,
        encoding: str,
        project: str,
        book: PriceBook,
        now: datetime,
        take: Callable[[int], None],
    ) -> Reading:
        """Read an ExportTraceServiceRequest.

        take: asked for room before more memory is used, may raise. Raises BodyTooLargeError, BodyBrokenError,
        TooMuchError and ReadError when the body can't be read.
        """
        decoded = decompress(body, encoding, limit=self.limits.decoded)
        if len(decoded) > len(body):
            take(len(decoded) - len(body))
        one_by_one = _OneByOne(Reading(), call.Reader(project=project, now=now), book)
        if content_type == JSON:
            spans = otlp_json.read(
                decoded, limits=self.limits, wanted=dialects.wanted, resource_wanted=dialects.resource_wanted
            )
            for span in spans:
                one_by_one.take(span)
        else:
            self._protobuf(decoded, one_by_one, project)
        return one_by_one.reading

    def _protobuf(self, body: bytes, one_by_one: "_OneByOne", project: str) -> None:
        found = list(sections(body, limits=self.limits, resource_wanted=dialects.resource_wanted))
        spans = protobuf.Spans(body, found, limits=self.limits, wanted=dialects.wanted)
        left: list[int] | range = range(len(spans))
        reading = one_by_one.reading
        if len(spans) >= self.bulk_from:
            request = Request(
                project=project,
                largest=self.limits.span,
                reader=one_by_one.reader,
                book=one_by_one.book,
                span=spans.plain,
                call=partial(_again, spans, one_by_one.reader, one_by_one.book),
            )
            result = self.bulk.read(body, found, request)
            reading.batch.tables += result.tables
            reading.received += len(spans) - len(result.left)
            left = result.left
        for number in left:
            one_by_one.take(spans[number])


@dataclass(slots=True)
class _OneByOne:
    """The general way: each span by itself."""

    reading: Reading
    reader: call.Reader
    book: PriceBook

    def take(self, span: Span | Rejected) -> None:
        reading = self.reading
        reading.received += 1
        found = span if isinstance(span, Rejected) else self.reader.read(span)
        if isinstance(found, Rejected):
            reading.rejected.append(found.reason)
        elif found is not None:
            reading.batch.calls.append(value(found, self.book))


def _again(spans: protobuf.Spans, reader: call.Reader, book: PriceBook, number: int) -> PricedCall:
    """The call of a span that makes one. Kept with its row, so it must not hold the reading that holds the row:
    the whole body would wait for the cycle collector, which runs rarely here."""
    found = reader.read(spans.plain(number))
    if found is None or isinstance(found, Rejected):
        raise TypeError(f"expected a span that makes a call, found {found}")
    return value(found, book)
