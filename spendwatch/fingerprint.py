"""Fingerprints of a call's content: keyed hashes by which repetition can be seen, and the content can't.

Equal content has equal prints, whichever wire format carried it; one changed character changes every exact print, and
moves a simhash by a few of its 64 bits at most. The key belongs to an installation: without it a print says nothing,
not even about a guessed text. What goes in is hashed and dropped; what comes out is hex, counts and one role.

Exact prints are BLAKE2b of the text; of one longer than HEAD bytes, of its beginning, length and CRC-32, which still
sees any change within four bytes. Only a request part of more than SAMPLED bytes is not read whole: see `_sampled`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import pack
from typing import Any, TypeAlias, cast
from zlib import crc32

import msgspec

from spendwatch import likeness
from spendwatch.calls import Fingerprint, ToolFingerprint
from spendwatch.draft import loose
from spendwatch.likeness import NORMALISED_BYTES, SIMHASH_BYTES, looks_like_error, mask

HEAD = 4 * 1024
SAMPLED = 64 * 1024
_MAX_PENDING = 4096
_SHORT = 256
_MAX_ARGUMENTS = 16 * 1024
_MAX_TOOLS = 64
_REMEMBERED = 256

PromptPrint: TypeAlias = Any
"""A Fingerprint in the making, of which the request's half is there. combine() finishes it, once."""
_LoosePrint = loose(Fingerprint)

Text = str | bytes | memoryview
"""Text as such, or its UTF-8 bytes."""


@dataclass(slots=True)
class Message:
    """One message of a conversation, freed of its wire format.

    role: system, user, assistant or tool (a message of tool results only). texts: its text parts. calls: tool calls,
    (name, arguments as JSON). media: what stands for images, files, audio. is_error: what the format itself says of a
    tool's result, None when it says nothing. raw: the whole message as it was sent, when it is too large to take apart.
    """

    role: str
    texts: list[str] = field(default_factory=list)
    calls: list[tuple[str, bytes]] = field(default_factory=list)
    media: list[str] = field(default_factory=list)
    is_error: bool | None = None
    raw: memoryview | None = None


class Fingerprinter:
    """Makes fingerprints under one key. May be shared between threads.

    key: secret of the installation, any length but empty (ValueError).
    """

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("a fingerprint key must not be empty; use 32 random bytes, the same for all processes")
        long = blake2b(key, digest_size=64, person=b"spendwatch-print").digest()
        self._keyed = blake2b(key=long[:32], digest_size=8)
        self._seed = int.from_bytes(long[32:36], "little")
        blocks = [blake2b(bytes((at,)), key=long[32:]).digest() for at in range(likeness.BINS * 4 // 64)]
        self._bins = likeness.bins(b"".join(blocks))
        self._systems: dict[tuple[int, int], str] = {}

    def exact(self, text: Text) -> str:
        """The print of one text: 16 hex digits."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        state = self._keyed.copy()
        if len(data) <= HEAD:
            state.update(data)
        else:
            state.update(data[:HEAD])
            state.update(pack("<QI", len(data), crc32(data)))
        return state.hexdigest()

    def simhash(self, text: Text) -> str:
        """The near-duplicate print: 64 bits over pieces of the beginning, as 16 hex digits.

        Texts that differ in few words differ in few bits. No words: all zeros.
        """
        data = text[:SIMHASH_BYTES].encode("utf-8", "surrogatepass") if isinstance(text, str) else text[:SIMHASH_BYTES]
        return f"{likeness.simhash(bytes(data), self._seed, self._bins):016x}"

    def normalised(self, text: Text) -> str:
        """The print of a text with numbers, clock times, durations, ids and temporary names masked."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
        return self.exact(mask(data))

    def prompt(
        self,
        *,
        system: Sequence[str] = (),
        prefix: Iterable[Text] = (),
        last: Sequence[Message] = (),
        messages: int | None = None,
    ) -> PromptPrint:
        """The prints of a request. last: its last messages, at most two, in order. prefix: all before the last, raw."""
        made = _LoosePrint()
        made.messages = messages
        if not last:
            return made
        tail = last[-1]
        if tail.raw is not None:
            length = len(tail.raw)
            data = bytes(tail.raw[:HEAD])
            text = data.decode("utf-8", "replace")
            ends = data[:NORMALISED_BYTES]
        else:
            text = tail.texts[0] if len(tail.texts) == 1 else "\n".join(tail.texts)
            length = len(text)
            ends = data = text.encode("utf-8", "surrogatepass")
        if system:
            made.system = self._system(system)
        made.prefix = self._prefix(prefix)
        made.last = self._last(last)
        made.last_role = tail.role
        made.last_simhash = self.simhash(data)
        made.last_length = length
        made.last_is_error = tail.is_error if tail.is_error is not None else looks_like_error(text)
        made.last_normalised = self.exact(mask(ends))
        return made

    def _system(self, texts: Sequence[str]) -> str:
        """The print of a system prompt: long, and the same for many calls. It isn't kept, only its hash and print."""
        text = texts[0] if len(texts) == 1 else "\n".join(texts)
        key = (hash(text), len(text))
        found = self._systems.get(key)
        if found is None:
            if len(self._systems) >= _REMEMBERED:
                self._systems.clear()
            found = self._systems[key] = self.exact(text)
        return found

    def _prefix(self, parts: Iterable[Text]) -> str | None:
        state = self._keyed.copy()
        empty = True
        for part in parts:
            empty = False
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            state.update(_sampled(data))
        return None if empty else state.hexdigest()

    def _last(self, messages: Sequence[Message]) -> str:
        state = self._keyed.copy()
        said: list[str] = []
        for message in messages:
            # Some formats keep the system prompt apart, others send it as the message before the first one.
            if message.role == "system" and message is not messages[-1]:
                continue
            if message.raw is not None:
                said.append("\x1e")
                state.update("".join(said).encode("utf-8", "surrogatepass"))
                state.update(_sampled(message.raw))
                said = []
                continue
            said += ("\x1e", message.role)
            for text in message.texts:
                said += ("\x1ft", text)
            for media in message.media:
                said += ("\x1fm", media)
            for name, arguments in message.calls:
                said += ("\x1fc", name, "\x1f", canonical(arguments).decode("utf-8", "replace"))
        state.update("".join(said).encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    def reply(self) -> "ReplyPrint":
        """What takes in a reply as it arrives."""
        return ReplyPrint(self)

    def combine(
        self, prompt: PromptPrint | None, reply: "ReplyPrint | None", *, tool_names: bool
    ) -> Fingerprint | None:
        """The Fingerprint of a call from its two halves; None when neither has anything. prompt: of prompt(), or None.

        Once for each prompt: it becomes the Fingerprint.
        """
        if prompt is None:
            prompt = _LoosePrint()
            if reply is None or not reply.into(prompt, tool_names=tool_names):
                return None
        elif reply is not None:
            reply.into(prompt, tool_names=tool_names)
        prompt.__class__ = Fingerprint
        return cast(Fingerprint, prompt)


class ReplyPrint:
    """Takes in a reply piece by piece. Holds at most about 28 KiB, whatever the length, however small the pieces."""

    __slots__ = ("_by", "_calls", "_crc", "_head", "_length", "_pending", "_room", "_size")

    def __init__(self, by: Fingerprinter) -> None:
        self._by = by
        self._pending = bytearray()
        self._head = b""
        self._crc = 0
        self._size = 0
        self._length = 0
        self._calls: dict[object, _Call] = {}
        self._room = _MAX_ARGUMENTS

    def text(self, piece: str) -> None:
        """The next piece of what the reply says."""
        self._length += len(piece)
        data = piece.encode("utf-8", "surrogatepass")
        if len(data) < _SHORT:
            # Gathered as bytes, for a list of small strings takes many times what is in them.
            self._pending += data
            if len(self._pending) < _MAX_PENDING:
                return
            data = b""
        self._flush()
        self._add(data)

    def _flush(self) -> None:
        if self._pending:
            self._add(bytes(self._pending))
            self._pending.clear()

    def _add(self, data: bytes) -> None:
        size = self._size + len(data)
        if size <= HEAD:
            self._head += data
        else:
            # The CRC is only wanted of a text that is longer than its head.
            crc = self._crc if self._size > HEAD else crc32(self._head)
            self._crc = crc32(data, crc)
            self._head += data[: max(HEAD - self._size, 0)]
        self._size = size

    def call(self, key: object, name: str | None, arguments: str | bytes | None) -> None:
        """A tool call, or the next piece of its arguments. key: what tells it from other calls of the reply."""
        call = self._calls.get(key)
        if call is None:
            if len(self._calls) >= _MAX_TOOLS:
                return
            call = self._calls[key] = _Call()
        if name and not call.name:
            call.name = name
        if arguments:
            data = arguments.encode("utf-8", "surrogatepass") if isinstance(arguments, str) else arguments
            call.crc = crc32(data, call.crc)
            call.size += len(data)
            call.arguments += data[: self._room]
            call.whole = call.whole and len(data) <= self._room
            self._room = max(self._room - len(data), 0)

    def into(self, prints: PromptPrint, *, tool_names: bool) -> bool:
        """Put the prints into a Fingerprint in the making; False when the reply said nothing and asked for nothing."""
        if self._pending:
            self._flush()
        if self._calls:
            prints.tools = tuple([self._tool(call, tool_names) for call in self._calls.values()])
        if not self._size:
            return False
        # The same as exact() of the whole text would give.
        state = self._by._keyed.copy()
        state.update(self._head)
        if self._size > HEAD:
            state.update(pack("<QI", self._size, self._crc))
        prints.response = state.hexdigest()
        prints.response_simhash = self._by.simhash(self._head)
        prints.response_length = self._length
        return True

    def _tool(self, call: "_Call", tool_names: bool) -> ToolFingerprint:
        arguments = bytes(call.arguments)
        if call.whole:
            arguments = canonical(arguments)
            exact = self._by.exact(arguments)
        else:
            exact = self._by.exact(arguments[:HEAD] + pack("<QI", call.size, call.crc))
        said = b"\x1e" + call.name.encode("utf-8", "surrogatepass") + b"\x1f" + arguments
        self._length += len(said) - 2
        self._add(said)
        return ToolFingerprint(
            name=call.name if tool_names else "", arguments=exact, arguments_simhash=self._by.simhash(arguments)
        )


class _Call:
    __slots__ = ("arguments", "crc", "name", "size", "whole")

    def __init__(self) -> None:
        self.name = ""
        self.arguments = bytearray()
        self.crc = 0
        self.size = 0
        self.whole = True


def canonical(arguments: bytes) -> bytes:
    """JSON with sorted keys and no white space; anything else as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return arguments


def _sampled(data: bytes | memoryview) -> bytes:
    """What stands for one part of a request: its length and CRC-32, beside its first HEAD bytes.

    Of a part above SAMPLED bytes the CRC takes both ends (an eighth of SAMPLED each) and 32 evenly spread blocks: a
    history of a megabyte would otherwise cost more than all the rest of watching the call. A change of its length, or
    near its ends, is always seen; one that keeps the length may fall between the blocks.
    """
    size = len(data)
    if size <= SAMPLED:
        crc = crc32(data)
    else:
        view = memoryview(data)
        end = SAMPLED // 8
        crc = crc32(view[-end:], crc32(view[:end]))
        step = (size - 2 * end) // 32
        block = min(step, SAMPLED // 128)
        for at in range(end, end + 32 * step, step):
            crc = crc32(view[at : at + block], crc)
    return bytes(data[:HEAD]) + pack("<QI", size, crc)
