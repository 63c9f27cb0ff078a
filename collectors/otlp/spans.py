"""A span as the collector reads it, whatever its encoding, and which of its attributes are read at all.

Attributes are taken by name: one that no dialect names (prompts, completions, tool arguments, whatever comes next
year) is passed over before its value is looked at. So content can't get in, also under a name nobody knew.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spendwatch.errors import ReadError

MAX_TEXT = 1024
"""Characters kept of one text: ids, names and tags are shorter; what is longer is not one of them."""


@dataclass(slots=True, kw_only=True)
class Span:
    """One span. Ids are lower-case hex ("" when not sent), times nanoseconds since 1970 (0 when not sent)."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    start_ns: int
    end_ns: int
    failed: bool
    status_message: str = ""
    """Why it failed, in the sender's words. Only compared with known texts, never kept."""
    attributes: dict[str, object]
    scope: str
    resource: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A span that can't be taken, and why; the request's other spans can."""

    reason: str


class TooMuchError(ReadError):
    """A well-formed body that holds more than the limits allow."""


Wanted = Callable[[str], bool]
"""Whether an attribute of this name is read."""


def text(value: str) -> str:
    """The text as it may be kept: no longer than MAX_TEXT, and valid Unicode (JSON can smuggle in half a pair)."""
    value = value[:MAX_TEXT]
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def number(value: float) -> float | None:
    """The number, None for NaN and the infinities."""
    return value if math.isfinite(value) else None
