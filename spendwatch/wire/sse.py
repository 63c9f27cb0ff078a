"""Server-sent events, split out of a byte stream that arrives in any pieces.

Follows the WHATWG text: lines end in CRLF, CR or LF, a line that starts with a colon is a comment, several data lines
make one event joined by LF, a blank line ends the event. Two liberties, both seen at providers: an event that the end
of the stream cuts off is still handed out by `close` (the reader decides whether it is whole), and a comment or
keep-alive may stand anywhere. Holds at most `limit` bytes of an unfinished event: of a longer one it keeps the two
ends. Events of the usual form are split many at once. Time is linear in the bytes, however small the pieces. Never
here: JSON, the meaning of an event.
"""

LIMIT = 48 * 1024
_BEGUN = 4 * 1024
_BOM = b"\xef\xbb\xbf"


class Splitter:
    """Feed it pieces; each call gives the events (name, data) that became whole."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._line = Clipped(limit)
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False
        self._idle = True
        """Whether no line is pending: the next byte, or what `_begun` holds, begins an event."""
        self._begun = b""
        """The beginning of an event that followed whole ones, not looked at yet."""

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """The events that this piece completes, in order."""
        if not self._idle:
            return self._by_line(piece)
        if self._begun:
            piece, self._begun = self._begun + piece, b""
        events: list[tuple[bytes, bytes]] = []
        if b"\r" not in piece:
            end = piece.rfind(b"\n\n") + 2
            if end >= 2:
                alike = _alike(piece[:end])
                if alike is None:
                    return self._by_line(piece)
                events, piece = alike, piece[end:]
                self._started = True
            if len(piece) <= _BEGUN:
                self._begun = piece
                return events
        return events + self._by_line(piece)

    def _by_line(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        if self._after_cr and piece:
            # The CR that ended the last piece was a line end of its own or the first half of a CRLF.
            self._after_cr = False
            if piece[:1] == b"\n":
                piece = piece[1:]
        if b"\r" in piece:
            self._after_cr = piece[-1:] == b"\r"
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines and self._line.length:
            self._line.add(lines[0])
            lines[0] = self._line.take()
        events: list[tuple[bytes, bytes]] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._event())
                self._name = b""
            elif line[:6] == b"data: ":
                self._add_data(line[6:])
            else:
                self._field(line)
        if rest:
            self._line.add(rest)
        self._idle = not (rest or self._line.length or self._data or self._name or self._after_cr)
        return events

    def close(self) -> list[tuple[bytes, bytes]]:
        """What the end of the stream leaves unfinished: at most one event, perhaps cut in its middle."""
        if self._begun:
            begun, self._begun = self._begun, b""
            self._by_line(begun)
        if self._line.length:
            self._field(self._line.take())
        return [self._event()] if self._data else []

    def _field(self, line: bytes) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._add_data(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ")

    def _add_data(self, value: bytes) -> None:
        self._started = True
        self._size += len(value)
        self._data.append(value)
        if self._size > self._limit and len(self._data) > 1:
            joined = Clipped(self._limit)
            for part in self._data:
                joined.add(part)
                joined.add(b"\n")
            self._data = [joined.take().removesuffix(b"\n")]
            self._size = len(self._data[0])

    def _event(self) -> tuple[bytes, bytes]:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        self._size = 0
        return self._name, data


def _alike(block: bytes) -> list[tuple[bytes, bytes]] | None:
    """The events of a block that ends with one, if each is one data line, or one event line and one data line.

    That is how nearly all of them are written. Lines are counted, so that nothing else can be among them.
    """
    if block.startswith(b"data: "):
        parts = block[6:-2].split(b"\n\ndata: ")
        return [(b"", part) for part in parts] if block.count(b"\n") == 2 * len(parts) else None
    if not block.startswith(b"event: "):
        return None
    parts = block[7:-2].split(b"\n\nevent: ")
    if block.count(b"\n") != 3 * len(parts):
        return None
    events = []
    for part in parts:
        name, found, data = part.partition(b"\ndata: ")
        if not found:
            return None
        events.append((name, data))
    return events


def run_of(events: list[tuple[bytes, bytes]], name: bytes) -> tuple[int, int]:
    """Where the events of this name stand, if they are several and in one run: from, to; else 0, 0."""
    names = [given for given, _ in events]
    count = names.count(name)
    if count < 3:
        return 0, 0
    start = names.index(name)
    return (start, start + count) if names[start : start + count].count(name) == count else (0, 0)


class LineSplitter:
    """Newline-delimited JSON: each line that is not blank is an event without a name. Bounded like Splitter."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._line = Clipped(limit)

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """The lines that this piece completes, in order."""
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines and self._line.length:
            self._line.add(lines[0])
            lines[0] = self._line.take()
        if rest:
            self._line.add(rest)
        return [(b"", line) for line in lines if line.strip()]

    def close(self) -> list[tuple[bytes, bytes]]:
        """The line that the end of the stream leaves without a newline."""
        line = self._line.take()
        return [(b"", line)] if line.strip() else []


class Clipped:
    """Bytes gathered up to a limit; of more than that, the first third of the limit and the last two."""

    __slots__ = ("_head", "_limit", "_one", "_rest", "length")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._one = b""
        self._rest: bytearray | None = None
        self._head: bytes | None = None
        self.length = 0
        """How many bytes were added, kept or not."""

    @property
    def clipped(self) -> bool:
        """Whether the middle is missing."""
        return self._head is not None

    def add(self, piece: bytes) -> None:
        if not self.length:
            # Most often one piece is all there is: keep a reference, not a copy.
            self._one = piece
        elif self._rest is None:
            self._rest = bytearray(self._one)
            self._rest += piece
        else:
            self._rest += piece
        self.length += len(piece)
        if self.length > self._limit:
            self._clip()

    def _clip(self) -> None:
        if self._rest is None:
            self._rest = bytearray(self._one)
        if self._head is None:
            self._head = bytes(self._rest[: self._limit // 3])
            del self._rest[: self._limit // 3]
        keep = self._limit - self._limit // 3
        if len(self._rest) > 2 * keep:
            del self._rest[:-keep]

    def take(self) -> bytes:
        """The bytes (the two ends when clipped), leaving this empty."""
        if self._rest is None:
            data = self._one
        elif self._head is None:
            data = bytes(self._rest)
        else:
            data = self._head + bytes(self._rest[-(self._limit - self._limit // 3) :])
        self._one = b""
        self._rest = self._head = None
        self.length = 0
        return data
