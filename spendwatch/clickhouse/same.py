"""Which observations are one call though no id of the reply says so: another instrumentation's span over our own.

Beside our SDK an instrumentation of the app's SDK makes a span of the same call, and often names no reply's id (or the
provider by another name, which makes another identity of the same id). Such a span stands in the same trace, above the
HTTP call that it speaks of: directly, with wrappers between, or at least at the same time with the same model and
tokens. It repeats that call, and one call only: the attempts under it that failed, and further calls in it, stay calls
of their own. A span whose tokens are the sum of several calls under it repeats all of them and is none itself.

Two replies' ids that differ are two calls, whatever else agrees. Pure. Never here: which observer's word counts.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spendwatch.calls import CallStatus, LLMCall

_DIRECT, _UNDER = 1, 0
"""Where a call stands to the span that may repeat it: its child, or further below."""
APART = frozenset({"otlp:langfuse"})
"""Observers that don't make their span the current one."""
_SLACK = timedelta(milliseconds=5)
"""Two clocks of one process: one may round to milliseconds."""
_DEPTH = 64
_FAMILY = {"text_completion": "chat", "generate_content": "chat"}
_DATED = re.compile(r"[-@:](\d{4}-\d{2}-\d{2}|\d{8}|latest|free)$")

_EQUAL, _OPEN, _DIFFERENT = 2, 1, 0
_Count = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`of`: the call that an observation repeats; None when it is the sum of several."""

    of: int | None


def foreign(call: LLMCall) -> bool:
    """Whether another instrumentation saw the call, whose spans may lie over those of others."""
    return is_foreign(call.source)


def is_foreign(source: str) -> bool:
    """Whether a call's source is another instrumentation."""
    return source.startswith("otlp:")


def repeats(calls: Sequence[LLMCall]) -> dict[int, Repeat]:
    """What repeats what, by position. The calls have different identities; their order is of no matter."""
    found: dict[int, Repeat] = {}
    traces: defaultdict[str, list[int]] = defaultdict(list)
    ids: defaultdict[str, list[int]] = defaultdict(list)
    for n, call in enumerate(calls):
        traces[call.trace_id].append(n)
        if call.response_id:
            ids[call.response_id].append(n)
    for group in ids.values():
        _by_id(calls, group, found)
    for group in traces.values():
        if len(group) > 1 and any(foreign(calls[n]) for n in group):
            _Trace(calls, group, found).look()
    _apart(calls, found)
    return found


def _apart(calls: Sequence[LLMCall], found: dict[int, Repeat]) -> None:
    """An observer whose span is never current: with no span of the app's around, it and our call are a trace each.

    Its span began before our call and ended after it, with the same model and tokens. Of several that fit, the first
    goes with the first: each of them has its own.
    """
    roots = [n for n, call in enumerate(calls) if call.parent_span_id is None and n not in found]
    spans = [n for n in roots if calls[n].source in APART]
    if not spans:
        return
    of_count: defaultdict[_Count, list[int]] = defaultdict(list)
    for n in sorted((n for n in roots if not foreign(calls[n])), key=lambda n: calls[n].started_at):
        for count in _counts(calls[n]):
            of_count[count].append(n)
    taken: set[tuple[int, str]] = set()
    for n in sorted(spans, key=lambda n: calls[n].started_at):
        span = calls[n]
        count = (span.usage.input_tokens, span.usage.output_tokens)
        for other in of_count.get(count, ()) if None not in count else ():
            fits = _inside(calls[other], span) and _alike(calls[other], span) and _models(span)
            if fits and span.trace_id != calls[other].trace_id and (other, span.source) not in taken:
                found[n] = Repeat(other)
                taken.add((other, span.source))
                break


def _by_id(calls: Sequence[LLMCall], group: list[int], found: dict[int, Repeat]) -> None:
    """One reply's id under several names of the provider (a host that we don't know is "openai" to others)."""
    for n in group:
        if not foreign(calls[n]):
            continue
        for other in group:
            if other == n or (foreign(calls[other]) and (other > n or other in found)) or other in found:
                continue
            a, b = calls[other], calls[n]
            together = a.trace_id == b.trace_id or _overlap(a, b)
            if together and a.provider_name != b.provider_name and _alike(a, b) and _tokens(a, b) != _DIFFERENT:
                found[n] = Repeat(other)
                break


class _Trace:
    """The observations of one trace."""

    def __init__(self, calls: Sequence[LLMCall], group: list[int], found: dict[int, Repeat]) -> None:
        self._calls = calls
        self._group = group
        self._found = found
        self._taken: defaultdict[int, list[int]] = defaultdict(list)
        self._outer = {calls[n].span_id: n for n in group if foreign(calls[n])}
        self._above = {n: list(self._over(n)) for n in group}
        """Of each observation the spans above it that are known, with where it stands to them."""

    def _over(self, n: int) -> Iterator[tuple[int, int]]:
        seen = {n}
        place = _DIRECT
        at: int | None = n
        for _ in range(_DEPTH):
            at = self._outer.get(self._calls[at].parent_span_id or "") if at is not None else None
            if at is None or at in seen:
                return
            seen.add(at)
            yield at, place
            place = _UNDER

    def look(self) -> None:
        ours = [n for n in self._group if not foreign(self._calls[n])]
        self._assign(self._linked(ours))
        self._at_the_same_time(ours)
        # What is left: one instrumentation's span over another's, with none of ours below.
        self._assign(self._linked([n for n in self._group if foreign(self._calls[n])]))
        self._sums(ours)

    def _linked(self, inner: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        for n in inner:
            for over, place in self._above[n]:
                tokens = _tokens(self._calls[n], self._calls[over])
                # The same tokens right there are the same call, also where the model goes by two names.
                if tokens != _DIFFERENT and self._may_be(n, over, same_model=tokens != _EQUAL):
                    yield n, over, place

    def _at_the_same_time(self, ours: Sequence[int]) -> None:
        """With the links between missing: same model, same tokens, in the order in which they began."""
        calls = self._calls
        of_count: defaultdict[_Count, list[int]] = defaultdict(list)
        for n in sorted(ours, key=lambda n: (calls[n].started_at, calls[n].span_id)):
            for count in _counts(calls[n]):
                of_count[count].append(n)
        free: dict[tuple[_Count, str], list[int]] = {}
        spans = sorted(self._outer.values(), key=lambda n: (calls[n].started_at, calls[n].span_id))
        for place in (_inside, _overlap):
            for over in spans:
                span = calls[over]
                count = (span.usage.input_tokens, span.usage.output_tokens)
                # Where no tokens are known there is less to tell them by; where one is, they may be others.
                if over in self._found or count not in of_count or (None in count and place is not _inside):
                    continue
                if None in count and count != (None, None):
                    continue
                left = free.setdefault((count, span.source), [n for n in of_count[count] if self._free(n, over)])
                for at, n in enumerate(left):
                    if calls[n].started_at > _end(span):
                        break
                    if place(calls[n], span) and self._may_be(n, over) and _models(calls[n]) and _models(span):
                        self._take(n, over)
                        del left[at]
                        break

    def _may_be(self, n: int, over: int, *, same_model: bool = True) -> bool:
        inner, outer = self._calls[n], self._calls[over]
        if inner.response_id and outer.response_id and inner.response_id != outer.response_id:
            return False
        # An attempt that failed is not what a span that ended well speaks of.
        if inner.status is CallStatus.ERROR and outer.status is not CallStatus.ERROR:
            return False
        return _kind(inner) == _kind(outer) and (not same_model or _alike(inner, outer))

    def _assign(self, pairs: Iterable[tuple[int, int, int]]) -> None:
        calls = self._calls

        def best_first(pair: tuple[int, int, int]) -> tuple[object, ...]:
            n, over, place = pair
            inner, outer = calls[n], calls[over]
            apart = abs(_end(outer) - _end(inner))
            return -place, -_tokens(inner, outer), inner.status is CallStatus.ERROR, apart, inner.span_id, outer.span_id

        for n, over, _ in sorted(pairs, key=best_first):
            if over not in self._found and self._free(n, over) and not self._leads(n, over):
                self._take(n, over)

    def _take(self, n: int, over: int) -> None:
        self._found[over] = Repeat(n)
        self._taken[n].append(over)

    def _free(self, n: int, over: int) -> bool:
        """One instrumentation makes one span of a call, but for those that lie over each other."""
        source = self._calls[over].source
        rivals = [other for other in self._taken[n] if self._calls[other].source == source]
        return all(self._in_line(over, other) for other in rivals)

    def _in_line(self, a: int, b: int) -> bool:
        return any(over == b for over, _ in self._above[a]) or any(over == a for over, _ in self._above[b])

    def _leads(self, n: int, over: int) -> bool:
        """Whether what n repeats is `over` itself."""
        for _ in range(_DEPTH):
            if n == over:
                return True
            repeat = self._found.get(n)
            if repeat is None or repeat.of is None:
                return False
            n = repeat.of
        return True

    def _sums(self, ours: Sequence[int]) -> None:
        below: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for n in ours:
            for over, place in self._above[n]:
                if over not in self._found:
                    below[over].append((n, place))
        for over, under in below.items():
            outer = self._calls[over]
            inner = [self._calls[n] for n, _ in under]
            if outer.response_id and all(call.response_id for call in inner):
                continue  # It speaks of one reply, which is none of these.
            known = [call.usage for call in inner if call.status is not CallStatus.ERROR]
            total = (sum(use.input_tokens or 0 for use in known), sum(use.output_tokens or 0 for use in known))
            summed = len(known) > 1 and total == (outer.usage.input_tokens, outer.usage.output_tokens)
            # However it counts: the HTTP calls of its model right under it are what it is made of.
            made_of = any(
                place == _DIRECT and call.status is not CallStatus.ERROR and _models(outer) and _alike(call, outer)
                for call, (_, place) in zip(inner, under, strict=True)
            )
            if summed or made_of:
                self._found[over] = Repeat(None)


def _alike(a: LLMCall, b: LLMCall) -> bool:
    """Whether both may speak of the same model and kind of call."""
    first, second = _models(a), _models(b)
    return _kind(a) == _kind(b) and (not first or not second or not first.isdisjoint(second))


def _kind(call: LLMCall) -> str:
    return _FAMILY.get(call.operation_name, call.operation_name)


def _models(call: LLMCall) -> set[str]:
    """The models that a call names, without their vendor and date: observers differ in which of them they tell."""
    names = (call.request_model, call.response_model)
    return {_DATED.sub("", name.lower().rsplit("/", 1)[-1]) for name in names if name}


def _counts(call: LLMCall) -> set[_Count]:
    """Input and output tokens; also as an observer counts them who leaves out what was cached."""
    use = call.usage
    given = use.input_tokens
    cached = (use.cache_read_input_tokens or 0) + (use.cache_write_input_tokens or 0)
    bare = given - cached if given is not None and cached <= given else given
    return {(given, use.output_tokens), (bare, use.output_tokens)}


def _tokens(a: LLMCall, b: LLMCall) -> int:
    """Whether both count the same tokens: equal, different, or not known of one of them."""
    found = _DIFFERENT
    for one in _counts(a):
        for other in _counts(b):
            pairs = [(x, y) for x, y in zip(one, other, strict=True) if x is not None and y is not None]
            if all(x == y for x, y in pairs):
                found = max(found, _EQUAL if len(pairs) == 2 else _OPEN)
    return found


def _duration(call: LLMCall) -> timedelta:
    return timedelta(microseconds=call.duration_us)


def _end(call: LLMCall) -> datetime:
    return call.started_at + _duration(call)


def _inside(inner: LLMCall, outer: LLMCall) -> bool:
    return inner.started_at >= outer.started_at - _SLACK and _end(inner) <= _end(outer) + _SLACK


def _overlap(a: LLMCall, b: LLMCall) -> bool:
    return a.started_at <= _end(b) + _SLACK and b.started_at <= _end(a) + _SLACK
