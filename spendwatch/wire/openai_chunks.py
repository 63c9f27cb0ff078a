"""The JSON of a chat completion and of its chunks, as far as it is read, and which pieces make one tool call.

Members that a copy of OpenAI's API adds stand beside OpenAI's own. Never here: what any of them means for a bill.
"""

from typing import Any, Literal

import msgspec


class Function(msgspec.Struct, gc=False):
    """The function of a tool call."""

    name: str | None = None
    arguments: Any = None


class ToolCall(msgspec.Struct, gc=False):
    """A tool call, or the next piece of one."""

    index: int | None = None
    id: Any = None
    function: Function | None = None
    custom: Any = None


class Said(msgspec.Struct, gc=False):
    """A message or a delta."""

    content: Any = None
    refusal: Any = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a completion or chunk."""

    index: int | None = None
    message: Said | None = None
    delta: Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    usage: Any = None
    error: Any = None


class Completion(msgspec.Struct, gc=False):
    """A whole completion, or one chunk of a streamed one."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Any = None
    provider: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    error: Any = None
    x_groq: Any = None
    cost: Any = None
    base_resp: Any = None
    timings: Any = None


class MoreText(msgspec.Struct, gc=False):
    """The delta of a chunk that brings a piece of text, or of what isn't kept (reasoning), and no call."""

    content: str | None = None
    tool_calls: None = None
    function_call: None = None


class OnlyText(msgspec.Struct, gc=False):
    """A choice that goes on with text alone."""

    index: Literal[0]
    delta: MoreText
    finish_reason: None = None
    usage: None = None
    error: None = None


class TextChunk(msgspec.Struct, gc=False):
    """The common chunk of a stream: one choice, a piece of its text, nothing else that is new."""

    choices: tuple[OnlyText]
    usage: None = None
    error: None = None
    x_groq: None = None
    base_resp: None = None
    cost: None = None


class Begun:
    """A tool call whose pieces may still come. key: what its print goes by."""

    __slots__ = ("id", "key", "named")

    def __init__(self, call_id: str | None, key: int) -> None:
        self.id = call_id
        self.key = key
        self.named = False


class Pieces:
    """The tool calls of a stream, put together by id, else by index.

    Some servers repeat a call's id and name in each of its pieces, even under another index; others give all calls
    one index, with an id each or none at all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun: dict[tuple[int, int | str], Begun] = {}
        self._count = 0

    def of(self, choice: int, place: int, call: ToolCall, name: str | None) -> tuple[int, bool]:
        """The key of the call that this is a piece of, and whether its name is new. place: the piece's in its list."""
        if name is None and call.id is None and call.index is not None:
            # The common piece: more arguments.
            begun = self._begun.get((choice, call.index))
            if begun is not None:
                return begun.key, False
        call_id = call.id if isinstance(call.id, str) and call.id else None
        at: tuple[int, int | str] = (choice, call.index if call.index is not None else ~place)
        begun = self._begun.get((choice, call_id)) if call_id else None
        if begun is None:
            begun = self._begun.get(at)
            if begun is None or (name and (call_id or begun.id is None)):
                begun = Begun(call_id, self._count)
                self._count += 1
                if len(self._begun) < self._limit:
                    self._begun[at] = begun
                    if call_id:
                        self._begun[choice, call_id] = begun
        fresh = bool(name) and not begun.named
        begun.named = begun.named or fresh
        return begun.key, fresh
