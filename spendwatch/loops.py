"""The loop detector: tells when an agent does the same thing again and again and gets nothing new.

Two rules, both on keyed fingerprints, sizes, times and money only; content is never seen:

- repeated_action: the same tool call (or, for agents that act in plain text, the same reply) with the same result, in
  a row or in a short cycle. A result is known when the next request carries it as its last message.
- canned_message: no tool call, and the same user message again and again ("Please proceed to the next step").

Invariants: what is unknown equals nothing, not even itself; memory is bounded; a loop is told once when it is seen
and again only after it had stopped. Pure and single-threaded: no clock, no I/O, so the caller decides who runs it.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from spendwatch.calls import CallStatus, Fingerprint, LLMCall

REPEATS = 4
"""The same action and the same result this often in a row. At 3, healthy browsing and game agents are told too."""
CYCLES = 3
"""Turns of a cycle of 2 to MAX_PERIOD actions. More than two actions that repeat three times are no coincidence."""
MAX_PERIOD = 4
LIKE_REPEATS = 6
"""Needed when results are the same only with their numbers masked: a poll whose progress counts up is no loop yet."""
CANNED = 5
"""The same user message this often without a tool call. At 4, four times as many undecided runs are told."""
NEAR = 3
"""Simhashes that differ in at most this many of 64 bits stand for the same text."""
GROWTH = 2
"""Messages a conversation grows by from one canned turn to the next: the reply and the message, nothing else."""
WINDOW = MAX_PERIOD * CYCLES
IDLE = timedelta(minutes=30)
"""A stream that was silent for this long starts anew."""

Stream = tuple[str, ...]


class Rule(StrEnum):
    """What was seen to repeat."""

    REPEATED_ACTION = "repeated_action"
    CANNED_MESSAGE = "canned_message"


class Level(StrEnum):
    """How sure the detector is."""

    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A loop and its evidence. Money is USD; times are the calls' starts, aware UTC.

    tool: what repeats ("" when it is no tool, or names are not kept). period: actions in one turn of the cycle.
    repeats: turns so far. calls, cost: of the whole loop, from its first call on; cost sums the known costs only, and
    unpriced counts the calls without one. usd_an_hour: cost over the time the loop runs; None before a minute passed.
    """

    rule: Rule
    level: Level
    stream: Stream
    tool: str
    period: int
    repeats: int
    calls: int
    unpriced: int
    first_at: datetime
    last_at: datetime
    cost: Decimal

    @property
    def usd_an_hour(self) -> Decimal | None:
        """What an hour of this costs; None while the loop is younger than a minute."""
        return an_hour(self.cost, self.first_at, self.last_at)


def an_hour(cost: Decimal, first_at: datetime, last_at: datetime) -> Decimal | None:
    """USD an hour of what cost `cost` USD between two times; None under a minute, where it would say little."""
    seconds = (last_at - first_at) // timedelta(seconds=1)
    return cost * 3600 / seconds if seconds >= 60 else None


def stream_key(call: LLMCall) -> Stream:
    """Which calls follow on each other: those of one agent of one service in the same session.

    Without a session tag, of the same trace, when the app has traces (a span above the call); else of the same API key
    and system prompt. In the last case conversations may mix: then loops can be missed, hardly invented, since the
    rules want a conversation that grows.
    """
    who = (call.service_name or "", call.tags.agent or "")
    if call.tags.session:
        return ("session", *who, call.tags.session)
    if call.parent_span_id:
        return ("trace", *who, call.trace_id)
    system = call.fingerprint.system if call.fingerprint else None
    return ("key", *who, call.key_hash or "", system or "")


@dataclass(frozen=True, slots=True)
class _Action:
    """What a reply asked for, and what the call cost."""

    what: tuple[tuple[str, str], ...]
    tool: str
    at: datetime
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class _Step:
    """An action and its result, as the next request showed it."""

    action: _Action
    last: str | None
    text: str | None
    simhash: int | None
    length: int | None
    role: str | None
    messages: int

    def same(self, other: "_Step") -> bool:
        """The same action, and a result that is the same but for masked parts or a word."""
        if self.action.what != other.action.what:
            return False
        if self.last is not None and self.last == other.last:
            return True
        if self.length == 0:
            return False  # A result without text, such as a screenshot: only `last` knows what is in it.
        if self.text is not None and self.text == other.text:
            return True
        return _near(self.simhash, other.simhash)

    def equal(self, other: "_Step") -> bool:
        """Also the numbers in the result are the same, as far as sizes and simhashes tell."""
        return self.length == other.length and (self.simhash == other.simhash or _near(self.simhash, other.simhash))


@dataclass(slots=True)
class _Loop:
    rule: Rule
    tool: str
    period: int
    turns: int
    calls: int
    unpriced: int
    first_at: datetime
    cost: Decimal


@dataclass(slots=True)
class _State:
    steps: deque[_Step] = field(default_factory=lambda: deque(maxlen=WINDOW))
    pending: _Action | None = None
    said: deque[_Action] = field(default_factory=lambda: deque(maxlen=CANNED))
    """The calls in a row that answered the same user message without a tool."""
    said_count: int = 0
    said_text: str | None = None
    said_messages: int = 0
    last_at: datetime | None = None
    loop: _Loop | None = None


class Detector:
    """Feed it calls in the order they started; it keeps a short memory of each stream, of the latest max_streams."""

    def __init__(self, max_streams: int = 10_000) -> None:
        self._max_streams = max_streams
        self._streams: OrderedDict[Stream, _State] = OrderedDict()

    def observe(self, call: LLMCall, cost: Decimal | None = None) -> Verdict | None:
        """Take note of a finished call; a Verdict when this call shows that a loop has begun.

        cost: what the call cost in USD, if better known than its reported or listed cost. A call older than one
        already seen of its stream is passed over: its place in the order is gone.
        """
        key = stream_key(call)
        state = self._streams.get(key)
        if state is None or (state.last_at is not None and call.started_at - state.last_at > IDLE):
            state = self._streams[key] = _State()
            if len(self._streams) > self._max_streams:
                self._streams.popitem(last=False)
        self._streams.move_to_end(key)
        fingerprint = call.fingerprint
        if fingerprint is None or (state.last_at is not None and call.started_at < state.last_at):
            return None
        action = _Action(_what(fingerprint), _names(fingerprint), call.started_at, _cost(call, cost))
        if not action.what and call.status is CallStatus.ERROR:
            return None  # It asked for nothing: the retry, with the same messages, stands in its place.
        state.last_at = call.started_at
        acted, canned = self._acted(state, fingerprint), self._canned(state, fingerprint, action)
        found = acted or canned
        state.pending = action if action.what else None
        return self._edge(key, state, found, action)

    def ongoing(self, call: LLMCall) -> Verdict | None:
        """The loop that the stream of this call is in, as far as it has gone; None when it is in none."""
        key = stream_key(call)
        state = self._streams.get(key)
        if state is None or state.loop is None or state.last_at is None:
            return None
        return _verdict(key, state.loop, state.last_at)

    def _acted(self, state: _State, fingerprint: Fingerprint) -> _Loop | None:
        """Complete the last action with its result, and look for a repeat that ends here."""
        if state.pending is None:
            state.steps.clear()
            return None
        step = _Step(
            state.pending,
            fingerprint.last,
            fingerprint.last_normalised,
            _bits(fingerprint.last_simhash),
            fingerprint.last_length,
            fingerprint.last_role,
            fingerprint.messages or 0,
        )
        state.steps.append(step)
        steps = list(state.steps)
        for period in range(1, MAX_PERIOD + 1):
            turns = _turns(steps, period)
            if turns is None:
                continue
            began = steps[-turns * period]
            # Without this, one question put afresh every minute, and answered alike, would look like a loop.
            if step.role != "tool" and step.messages <= began.messages:
                continue
            actions = [one.action for one in steps[-turns * period :]]
            return _begin(Rule.REPEATED_ACTION, step.action.tool, period, turns, actions)
        return None

    def _canned(self, state: _State, fingerprint: Fingerprint, action: _Action) -> _Loop | None:
        """Count the calls in a row that answer the same user message without a tool call."""
        text = fingerprint.last_normalised or fingerprint.last_simhash
        messages = fingerprint.messages or 0
        if fingerprint.tools or fingerprint.last_role != "user" or text is None or fingerprint.last_length == 0:
            state.said.clear()
            state.said_count = 0
            return None
        if text != state.said_text or not 0 < messages - state.said_messages <= GROWTH:
            state.said.clear()
            state.said_count = 0
        state.said_text, state.said_messages = text, messages
        state.said.append(action)
        state.said_count += 1
        if state.said_count < CANNED:
            return None
        return _begin(Rule.CANNED_MESSAGE, "", 1, state.said_count, list(state.said))

    def _edge(self, key: Stream, state: _State, found: _Loop | None, action: _Action) -> Verdict | None:
        """Begin, go on with or end the loop of a stream."""
        was = state.loop
        if found is None:
            state.loop = None
            return None
        if was is None:
            # The call that shows the repeat belongs to the loop: it was paid to read the old result once more.
            if found.rule is Rule.REPEATED_ACTION:
                _add(found, action)
            state.loop = found
            return _verdict(key, found, action.at)
        _add(was, action)
        was.turns = (was.calls - (was.rule is Rule.REPEATED_ACTION)) // was.period
        return None


def _turns(steps: Sequence[_Step], period: int) -> int | None:
    """How many turns of `period` actions stand at the end of steps, when that is enough for a loop; else None."""
    length = 0
    while length + period < len(steps) and steps[-1 - length].same(steps[-1 - length - period]):
        length += 1
    turns = (length + period) // period if length else 1
    needed = REPEATS if period == 1 else CYCLES
    if turns < needed:
        return None
    if period == 1 and turns < LIKE_REPEATS and not all(steps[-1].equal(one) for one in steps[-REPEATS:]):
        return None
    return turns


def _begin(rule: Rule, tool: str, period: int, turns: int, actions: Sequence[_Action]) -> _Loop:
    loop = _Loop(rule, tool, period, turns, 0, 0, actions[0].at, Decimal(0))
    for action in actions:
        _add(loop, action)
    return loop


def _add(loop: _Loop, action: _Action) -> None:
    loop.calls += 1
    if action.cost is None:
        loop.unpriced += 1
    else:
        loop.cost += action.cost


def _verdict(key: Stream, loop: _Loop, last_at: datetime) -> Verdict:
    return Verdict(
        rule=loop.rule, level=Level.ALERT, stream=key, tool=loop.tool, period=loop.period, repeats=loop.turns,
        calls=loop.calls, unpriced=loop.unpriced, first_at=loop.first_at, last_at=last_at, cost=loop.cost,
    )  # fmt: skip


def _what(fingerprint: Fingerprint) -> tuple[tuple[str, str], ...]:
    if fingerprint.tools:
        return tuple((tool.name, tool.arguments) for tool in fingerprint.tools)
    return (("", fingerprint.response),) if fingerprint.response else ()


def _names(fingerprint: Fingerprint) -> str:
    return ", ".join(dict.fromkeys(tool.name for tool in fingerprint.tools if tool.name))


def _cost(call: LLMCall, cost: Decimal | None) -> Decimal | None:
    if cost is not None:
        return cost
    return call.listed_cost if call.reported_cost is None else call.reported_cost


def _bits(simhash: str | None) -> int | None:
    return int(simhash, 16) if simhash else None


def _near(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and (a ^ b).bit_count() <= NEAR
