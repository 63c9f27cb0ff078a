"""Canaries: strings put wherever content or a secret may stand in an exchange, and the search for them afterwards."""

import base64
import contextlib
import gzip
import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from spendwatch.wire import Request

# What stands under these names is no content: what kind of thing it is, which model, how it ended. Tools' names too,
# which are kept unless tool_names=False.
STRUCTURE = frozenset(
    """
    action call_id code completed_at completionReason created createTime created_at done_reason encoding_format event
    finishReason finish_reason generation_id id index item_id last_error_type messageId mode model modelId modelVersion
    model_id model_name name native_finish_reason object operation output_format p provider quality reason request_id
    responseId response_format response_id response_type role serviceTier service_tier size status stop stopReason
    stop_reason stream system_fingerprint task traceId trafficType type
    """.split()  # noqa: SIM905  # read as a list of words
)


@dataclass(frozen=True, slots=True)
class Canary:
    """One word that stands nowhere else. It is put behind the texts, not in their place, so that sizes grow too."""

    word: str

    def plant(self, value: Any, key: str = "") -> Any:
        """The same structure with the word in every text of it, and in its keys that are the app's own."""
        if isinstance(value, dict):
            return {k: self.plant(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.plant(v, key) for v in value]
        if isinstance(value, str) and key not in STRUCTURE:
            if value[:1] in "{[" and value[-1:] in "}]":
                return self._within(value)
            return f"{value} {self.word}"
        return value

    def _within(self, text: str) -> str:
        # Arguments of tools are JSON in a text; in streams they come in pieces, which are left whole.
        try:
            return json.dumps(self.plant(json.loads(text)))
        except ValueError:
            return f"{text} {self.word}"

    def in_request(self, asked: Request, key_header: str = "authorization") -> Request:
        """In the body's texts, the headers, the key, and the address' query."""
        headers = {k: v for k, v in asked.headers.items() if k != "content-length"}
        headers |= {key_header: f"Bearer sk-{self.word}" if key_header == "authorization" else f"sk-{self.word}"}
        headers |= {"x-customer": self.word, "cookie": f"session={self.word}", "user-agent": f"app/{self.word}"}
        joint = "&" if "?" in asked.path else "?"
        body = asked.body
        if body and body[:1] in (b"{", b"["):
            body = json.dumps(self.plant(json.loads(body))).encode()
        elif body:
            # A form's fields, but for the model.
            field = rb'(; name="(?!model)[^\r]*(?:\r\n[^\r]+)*\r\n\r\n)([A-Za-z][^\r]*)'
            body = re.sub(field, rb"\1\2 %s" % self.word.encode(), body)
        return replace(asked, path=f"{asked.path}{joint}key={self.word}", headers=headers, body=body)

    def in_reply(self, body: bytes) -> bytes:
        """In every text of a JSON reply, or of the events of a stream. What is neither is left as it is."""
        if body[:2] == b"\0\0" and b":message-type" in body:
            return b"".join(self._frame(frame) for frame in _frames(body))
        try:
            return json.dumps(self.plant(json.loads(body))).encode()
        except ValueError:
            return b"".join(self._line(line) for line in body.splitlines(keepends=True))

    def _line(self, line: bytes) -> bytes:
        found = re.match(rb"(data: ?)?(\{.*\})(\r?\n?)$", line, re.DOTALL)
        if found is None:
            return line
        try:
            value = json.loads(found[2])
        except ValueError:
            return line
        return (found[1] or b"") + json.dumps(self.plant(value)).encode() + found[3]

    def _frame(self, frame: tuple[bytes, bytes]) -> bytes:
        headers, payload = frame
        with contextlib.suppress(ValueError):  # a recording that breaks off
            value = json.loads(payload)
            if isinstance(value.get("bytes"), str):
                inner = self.plant(json.loads(base64.b64decode(value["bytes"])))
                value["bytes"] = base64.b64encode(json.dumps(inner).encode()).decode()
            else:
                value = self.plant(value)
            payload = json.dumps(value).encode()
        prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
        message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
        return message + struct.pack(">I", zlib.crc32(message))

    def forms(self) -> Iterator[bytes]:
        """The word as it may stand in bytes: plain, hex, base64 at each of its three offsets, UTF-16, reversed."""
        plain = self.word.encode()
        yield plain
        yield plain.hex().encode()
        for offset in range(3):
            encoded = base64.b64encode(b"\0" * offset + plain)
            yield encoded[(0, 2, 3)[offset] : len(encoded) // 4 * 4 - 4]
        yield self.word.encode("utf-16-le")
        yield plain[::-1]

    def found_in(self, blobs: Iterable[bytes]) -> list[bytes]:
        """Where it stands, with its surroundings; also within what is compressed."""
        out = []
        for blob in blobs:
            for data in (blob, *_inflated(blob)):
                for form in self.forms():
                    at = data.lower().find(form.lower())
                    if at >= 0:
                        out.append(data[max(at - 80, 0) : at + 80])
        return out


def _frames(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The headers and payload of each message of an AWS event stream."""
    at = 0
    while at + 16 <= len(body):
        total, headers = struct.unpack_from(">II", body, at)
        yield body[at + 12 : at + 12 + headers], body[at + 12 + headers : at + total - 4]
        at += total


def _inflated(blob: bytes) -> Iterator[bytes]:
    for magic, inflate in ((b"\x1f\x8b\x08", gzip.decompress), (b"\x78\x9c", _zlib), (b"\x78\x01", _zlib)):
        at = blob.find(magic)
        while at >= 0:
            with contextlib.suppress(OSError, EOFError, zlib.error):
                yield inflate(blob[at:])
            at = blob.find(magic, at + 1)


def _zlib(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data)
