"""Server-sent events, split out of a byte stream that arrives in any pieces.

Follows the WHATWG text: lines end in CRLF, CR or LF, a line that starts with a colon is a comment, several data lines
make one event joined by LF, a blank line ends the event. Two liberties, both seen at providers: an event that the end
of the stream cuts off is still handed out by `close` (the reader decides whether it is whole), and a comment or
keep-alive may stand anywhere. Bytes are kept as they came until an event is whole, and only then looked at. Of an event
of `limit` bytes or more the two ends count: its first members come as an event of their own, then what is left of it.
Time is linear in the bytes, however small the pieces. Never here: the meaning of an event.
"""

from spendwatch.wire.jsonread import head_object

LIMIT = 26 * 1024
_JOINED = 1024
_SLACK = 1024
_BOM = b"\xef\xbb\xbf"

Event = tuple[bytes, bytes]
"""An event's name, empty when it has none, and its data."""


class Splitter:
    """Feed it pieces; each call gives the events that became whole."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rest = Clipped(limit)
        """The beginning of an event that isn't whole yet, its lines ended by LF."""
        self._ends_line = False
        """Whether `_rest` ends in a LF: one more makes it whole."""
        self._cr = False
        """Whether the last piece ended in a CR: a line end of its own, or the first half of a CRLF."""

    @property
    def held(self) -> int:
        """Bytes kept of an event that isn't whole yet."""
        return self._rest.held

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes, in order."""
        block = self.block(piece)
        return cut(block, self._limit) if block else []

    def block(self, piece: bytes) -> bytes:
        """The events that this piece completes, not cut yet: for cut(), or for who can read many at once."""
        if self._cr or b"\r" in piece:
            piece = self._with_lf(piece)
        rest = self._rest
        before = b""
        if rest.length > _JOINED:
            # Not joined anew with each small piece: only the event's end is looked for.
            if self._ends_line and piece[:1] == b"\n":
                end = 1
            else:
                end = piece.find(b"\n\n") + 2
                if end < 2:
                    self._keep(piece)
                    return b""
            rest.add(piece[:end])
            before, piece = rest.take(), piece[end:]
        elif rest.length:
            piece = rest.take() + piece
        end = piece.rfind(b"\n\n") + 2
        if end < 2:
            self._keep(piece)
            return before
        if end < len(piece):
            self._keep(piece[end:])
            piece = piece[:end]
        return before + piece if before else piece

    def close(self) -> list[Event]:
        """What the end of the stream leaves unfinished: at most one event, perhaps cut in its middle."""
        begun = self._rest.take()
        self._cr = False
        # Of a large one no members go ahead: they would tell the end of a stream that broke off in its last event.
        return _by_line(_two_ends(begun + b"\n\n", self._limit)) if begun else []

    def _keep(self, begun: bytes) -> None:
        if begun:
            self._rest.add(begun)
            self._ends_line = begun[-1:] == b"\n"

    def _with_lf(self, piece: bytes) -> bytes:
        if self._cr:
            piece = b"\r" + piece
        self._cr = piece[-1:] == b"\r"
        if self._cr:
            piece = piece[:-1]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def cut(block: bytes, limit: int = LIMIT) -> list[Event]:
    """The events of a block."""
    if len(block) >= limit:
        parts = block[:-2].split(b"\n\n")
        if max(map(len, parts)) + 2 >= limit:
            return [event for part in parts for event in _cut_one(part + b"\n\n", limit)]
    events = _alike(block)
    return events if events is not None else _by_line(block)


def _cut_one(event: bytes, limit: int) -> list[Event]:
    if len(event) < limit:
        return _by_line(event)
    events = _by_line(_two_ends(event, limit))
    first = _by_line(event[: limit // 3] + b"\n\n")
    members = head_object(first[0][1]) if first else None
    return [(first[0][0], members), *events] if members is not None else events


def _two_ends(event: bytes, limit: int) -> bytes:
    """What is kept of an event: the same, whether it came in one piece or was clipped on its way."""
    if len(event) < limit:
        return event
    third = limit // 3
    return event[:third] + event[third - limit :]


def _alike(block: bytes) -> list[Event] | None:
    """The events of a block, if each is one data line, or one event line and one data line.

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


def _by_line(block: bytes) -> list[Event]:
    """The events of a block, whatever lines it has."""
    events: list[Event] = []
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        if not line:
            if data:
                events.append((name, data[0] if len(data) == 1 else b"\n".join(data)))
                data = []
            name = b""
        elif line[:6] == b"data: ":
            data.append(line[6:])
        else:
            field, _, value = line.removeprefix(_BOM).partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
    return events


def run(block: bytes, opening: bytes, limit: int = LIMIT) -> tuple[bytes, list[bytes], bytes] | None:
    """A block cut at the events that begin with `opening`: what precedes the first, their data, what follows the last.

    Nothing between two of them is looked at: if it is JSON by itself, nothing else was there. None: they are fewer than
    three, or one is so large that only its ends count.
    """
    between = b"\n\n" + opening
    if block.startswith(opening):
        before = b""
        data = block[len(opening) : -2].split(between)
    else:
        before, *data = block[:-2].split(between)
        before += b"\n\n"
    if len(data) < 3:
        return None
    data[-1], _, after = data[-1].partition(b"\n\n")
    if len(block) >= limit and max(map(len, data)) + len(between) >= limit:
        return None
    return before, data, after + b"\n\n" if after else b""


class LineSplitter:
    """Newline-delimited JSON: each line that is not blank is an event without a name. Bounded like Splitter."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._line = Clipped(limit)

    @property
    def held(self) -> int:
        """Bytes kept of a line that isn't whole yet."""
        return self._line.held

    def feed(self, piece: bytes) -> list[Event]:
        """The lines that this piece completes, in order."""
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines and self._line.length:
            self._line.add(lines[0])
            lines[0] = self._line.take()
        if rest:
            self._line.add(rest)
        return [(b"", line) for line in lines if line.strip()]

    def close(self) -> list[Event]:
        """The line that the end of the stream leaves without a newline."""
        line = self._line.take()
        return [(b"", line)] if line.strip() else []


class Clipped:
    """Bytes gathered up to a limit; of more than that, the first third of the limit and the last two."""

    __slots__ = ("_head", "_keep", "_limit", "_one", "_rest", "length")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keep = limit - limit // 3
        self._one = b""
        self._rest: bytearray | None = None
        self._head: bytes | None = None
        self.length = 0
        """How many bytes were added, kept or not."""

    @property
    def clipped(self) -> bool:
        """Whether the middle is missing."""
        return self._head is not None

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        if self._rest is None:
            return len(self._one)
        return len(self._rest) + (len(self._head) if self._head is not None else 0)

    def add(self, piece: bytes) -> None:
        """The next bytes."""
        if not self.length:
            # Most often one piece is all there is: keep a reference, not a copy.
            self._one = piece
        elif self._rest is None:
            self._rest = bytearray(self._one)
            self._rest += piece
            self._one = b""
        else:
            self._rest += piece
        self.length += len(piece)
        if self.length > self._limit:
            self._clip()

    def _clip(self) -> None:
        if self._rest is None:
            self._rest, self._one = bytearray(self._one), b""
        if self._head is None:
            self._head = bytes(self._rest[: self._limit // 3])
            del self._rest[: self._limit // 3]
        # Taking bytes off a bytearray's front costs nothing until it grows again; a little more than is needed stays.
        if len(self._rest) > self._keep + _SLACK:
            del self._rest[: -self._keep]

    def take(self) -> bytes:
        """The bytes (the two ends when clipped), leaving this empty."""
        if self._rest is None:
            data = self._one
        elif self._head is None:
            data = bytes(self._rest)
        else:
            data = self._head + bytes(self._rest[-self._keep :])
        self._one = b""
        self._rest = self._head = None
        self.length = 0
        return data
