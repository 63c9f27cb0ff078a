"""A body -> the priced calls in it: decompress, decode, translate, value. Pure but for the room it takes.

Runs in a reader's thread. One request is read whole before anything of it goes further, so that a body that breaks in
its middle leaves nothing half-done. Never here: HTTP, storing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from collectors.otlp import call, dialects, otlp_json, protobuf
from collectors.otlp.answers import JSON, PROTOBUF
from collectors.otlp.body import decompress
from collectors.otlp.limits import Limits
from collectors.otlp.spans import Rejected
from spendwatch.calls import PricedCall
from spendwatch.prices import PriceBook, value

READERS = {JSON: otlp_json.read, PROTOBUF: protobuf.read}


@dataclass(slots=True)
class Reading:
    """What one request holds. `rejected`: why spans can't be stored, one reason each."""

    calls: list[PricedCall] = field(default_factory=list)
    received: int = 0
    rejected: list[str] = field(default_factory=list)

    @property
    def ignored(self) -> int:
        """Spans that are not a call to a model."""
        return self.received - len(self.calls) - len(self.rejected)


def read(
    body: bytes,
    *,
    content_type: str,
    encoding: str,
    project: str,
    book: PriceBook,
    now: datetime,
    limits: Limits,
    take: Callable[[int], None],
) -> Reading:
    """Read an ExportTraceServiceRequest.

    take: asked for room before more memory is used, may raise. Raises BodyTooLargeError, BodyBrokenError, TooMuchError
    and ReadError when the body can't be read.
    """
    decoded = decompress(body, encoding, limit=limits.decoded)
    if len(decoded) > len(body):
        take(len(decoded) - len(body))
    reading = Reading()
    spans = READERS[content_type](
        decoded, limits=limits, wanted=dialects.wanted, resource_wanted=dialects.resource_wanted
    )
    reader = call.Reader(project=project, now=now)
    for span in spans:
        reading.received += 1
        found = span if isinstance(span, Rejected) else reader.read(span)
        if isinstance(found, Rejected):
            reading.rejected.append(found.reason)
        elif found is not None:
            reading.calls.append(value(found, book))
    return reading
