"""AWS event-stream messages, split out of a byte stream that arrives in any pieces.

A message is a prelude (total length, length of the headers, a CRC), headers, a payload and a CRC:
docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html has the framing that all AWS streams share. The
CRCs are not checked: a message that a proxy has rewritten is still read; lengths that can't be true end it.
Of a message larger than `limit` the payload's two ends are kept. Time is linear in the bytes, however small the pieces.
Never here: JSON, the meaning of a message.
"""

from struct import Struct

from spendwatch.wire.sse import LIMIT, Clipped, Event

_PRELUDE = Struct(">III")
_OVERHEAD = _PRELUDE.size + 4
_MAX_MESSAGE = 32 * 1024 * 1024
_MAX_HEADERS = 8 * 1024
# Sizes of header values by type: true, false, byte, short, int, long, bytes, string, timestamp, uuid.
_SIZES = (0, 0, 1, 2, 4, 8, None, None, 8, 16)
_STRING = 7

EXCEPTION = b"exception/"
"""What precedes the name of an exception or error message."""

CLIPPED = LIMIT - 4
"""The length of a payload of which only the two ends were kept; no whole one is as long."""


class MessageSplitter:
    """Feed it pieces; each call gives the messages (name, payload) that became whole.

    The name is the event's type; of an exception its type after EXCEPTION.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._large = Clipped(limit)
        self._left = 0
        self._name = b""
        self.broken = False
        """Whether the bytes ceased to be messages."""

    @property
    def held(self) -> int:
        """Bytes kept of a message that isn't whole yet."""
        return len(self._held) + self._large.held

    def feed(self, piece: bytes) -> list[Event]:
        """The messages that this piece completes, in order."""
        if self.broken:
            return []
        held = self._held
        held += piece
        messages: list[Event] = []
        at = 0
        while True:
            if self._left:
                taken = bytes(held[at : at + self._left])
                self._large.add(taken)
                at += len(taken)
                self._left -= len(taken)
                if self._left:
                    break
                messages.append((self._name, self._large.take()[:-4]))
            if len(held) - at < _PRELUDE.size:
                break
            total, size, _ = _PRELUDE.unpack_from(held, at)
            if size > _MAX_HEADERS or not _OVERHEAD + size <= total <= _MAX_MESSAGE:
                self.broken = True
                at = len(held)
                break
            body = at + _PRELUDE.size + size
            if total <= self._limit:
                if len(held) - at < total:
                    break
                name = name_of(bytes(held[at + _PRELUDE.size : body]))
                messages.append((name, bytes(held[body : at + total - 4])))
                at += total
            else:
                if len(held) < body:
                    break
                self._name = name_of(bytes(held[at + _PRELUDE.size : body]))
                self._left = total - _PRELUDE.size - size
                at = body
        del held[:at]
        return messages

    def close(self) -> list[Event]:
        """A message that the end of the stream cut off says nothing."""
        self._held.clear()
        return []


def name_of(headers: bytes) -> bytes:
    """The name of the message with these headers; empty when they have none or are no headers."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(headers):
        end = at + 1 + headers[at]
        key = headers[at + 1 : end]
        kind = headers[end] if end < len(headers) else len(_SIZES)
        if kind >= len(_SIZES):
            break
        size = _SIZES[kind]
        start = end + 1
        if size is None:
            size = int.from_bytes(headers[start : start + 2])
            start += 2
        if kind == _STRING:
            found[key] = headers[start : start + size]
        at = start + size
    kind_of_message = found.get(b":message-type", b"event")
    if kind_of_message == b"event":
        return found.get(b":event-type", b"")
    return EXCEPTION + (found.get(b":exception-type") or found.get(b":error-code") or kind_of_message)
