"""What the collector answers: OTLP's response messages, and google.rpc.Status for everything that went wrong.

An answer speaks the request's encoding. A failure says what was expected, what was found and what to do, because the
sender's log is the only place where anybody will read it.
"""

import json
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

# HTTP status -> google.rpc.Code.
_RPC_CODES = {400: 3, 401: 16, 404: 5, 405: 12, 411: 3, 413: 3, 415: 3, 429: 8, 503: 14}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def stored(content_type: str, *, rejected: int = 0, message: str = "") -> Answer:
    """200: everything is stored, but for `rejected` spans that never can be, and why."""
    if content_type == JSON:
        partial = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}} if rejected else {}
        return Answer(200, JSON, json.dumps(partial).encode())
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    return Answer(200, PROTOBUF, response.SerializeToString())


def failed(
    status: int, content_type: str, message: str, *, retry_after_s: int | None = None, allow: str | None = None
) -> Answer:
    """A refusal. With retry_after_s (429, 503) the sender keeps its spans and comes back; else it drops them."""
    headers: list[tuple[bytes, bytes]] = []
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    if allow is not None:
        headers.append((b"allow", allow.encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    code = _RPC_CODES[status]
    if content_type == JSON:
        body = json.dumps({"code": code, "message": message}).encode()
    else:
        # google.rpc.Status {int32 code = 1; string message = 2}, whose generated module is a package of its own.
        text = message.encode("utf-8", "replace")
        body = bytes((0x08, code, 0x12)) + _varint(len(text)) + text
    return Answer(status, content_type, body, tuple(headers))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
