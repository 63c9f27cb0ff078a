"""The loop detector on made-up conversations: one behaviour a test."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from spendwatch.calls import CallStatus, Fingerprint, LLMCall, Tags, ToolFingerprint
from spendwatch.loops import CANNED, REPEATS, Detector, Rule, Verdict, stream_key

START = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)
COST = Decimal("0.07")


class Conversation:
    """An agent's calls, ten seconds apart; each turn says what the request ends with and what the reply asks for."""

    def __init__(self, **tags: str) -> None:
        self.tags = Tags(**{"agent": "crawler", "session": "s1", **tags})  # type: ignore[arg-type]
        self.at = START
        self.messages = 2
        self.serial = 0

    def call(
        self,
        result: str | None,
        *tools: tuple[str, str],
        role: str = "tool",
        grow: int = 2,
        reply: str | None = None,
        length: int = 100,
        cost: Decimal | None = COST,
    ) -> LLMCall:
        self.serial += 1
        call = LLMCall(
            trace_id=f"{self.serial:032x}",
            span_id=f"{self.serial:016x}",
            started_at=self.at,
            duration_us=1_000_000,
            provider_name="openai",
            reported_cost=cost,
            service_name="shop",
            tags=self.tags,
            fingerprint=Fingerprint(
                system="5e5e",
                last_normalised=result,
                last_role=role,
                last_length=length,
                messages=self.messages,
                tools=tuple(ToolFingerprint(name=n, arguments=a, arguments_simhash="") for n, a in tools),
                response=reply,
            ),
        )
        self.at += timedelta(seconds=10)
        self.messages += grow
        return call


def feed(detector: Detector, calls: list[LLMCall]) -> list[tuple[int, Verdict]]:
    told = ((index, detector.observe(call)) for index, call in enumerate(calls))
    return [(index, verdict) for index, verdict in told if verdict]


def searches(talk: Conversation, times: int) -> list[LLMCall]:
    """The question, then the same search with the same result, `times` times, and the call that reads the last one."""
    return [talk.call("question", ("search", "a1"), role="user")] + [
        talk.call("none", ("search", "a1")) for _ in range(times)
    ]


def test_a_tool_call_that_repeats_with_the_same_result_is_told_once() -> None:
    told = feed(Detector(), searches(Conversation(), 10))
    assert [index for index, _ in told] == [REPEATS]
    verdict = told[0][1]
    assert verdict.rule is Rule.REPEATED_ACTION
    assert (verdict.tool, verdict.repeats, verdict.period) == ("search", REPEATS, 1)
    assert verdict.first_at == START
    assert verdict.last_at == START + timedelta(seconds=40)
    assert (verdict.calls, verdict.cost) == (5, Decimal("0.35"))


def test_a_loop_that_goes_on_grows_in_turns_and_dollars() -> None:
    detector = Detector()
    calls = searches(Conversation(), 10)
    feed(detector, calls)
    verdict = detector.ongoing(calls[-1])
    assert verdict is not None
    assert (verdict.calls, verdict.repeats, verdict.cost) == (11, 10, Decimal("0.77"))
    assert verdict.usd_an_hour == Decimal("0.77") * 36


def test_a_call_without_a_cost_is_counted_as_unpriced_not_as_free() -> None:
    talk = Conversation()
    calls = [replace(call, reported_cost=None) if n == 2 else call for n, call in enumerate(searches(talk, REPEATS))]
    verdict = feed(Detector(), calls)[0][1]
    assert (verdict.calls, verdict.unpriced, verdict.cost) == (5, 1, Decimal("0.28"))


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(lambda n: (f"page {n}", ("search", "a1")), id="same search, new results"),
        pytest.param(lambda n: ("none", ("search", f"a{n}")), id="other arguments, same result"),
        pytest.param(lambda n: (None, ("search", "a1")), id="results unknown"),
        pytest.param(lambda n: ("none", ("search", "a1"), ("fetch", f"u{n}")), id="another tool beside it"),
    ],
)
def test_progress_is_no_loop(turn: object) -> None:
    talk = Conversation()
    calls = [talk.call(*turn(n)) for n in range(20)]  # type: ignore[operator]
    assert feed(Detector(), calls) == []


def test_screenshots_that_differ_are_progress_and_equal_ones_a_loop() -> None:
    def shots(same: bool) -> list[LLMCall]:
        talk = Conversation()
        taken = [talk.call("empty", ("screenshot", "-"), length=0) for _ in range(8)]
        return [
            replace(call, fingerprint=replace(call.fingerprint, last="same" if same else f"image {n}"))
            for n, call in enumerate(taken)
            if call.fingerprint is not None
        ]

    assert feed(Detector(), shots(same=False)) == []
    assert [index for index, _ in feed(Detector(), shots(same=True))] == [REPEATS]


def test_a_poll_whose_progress_counts_up_is_told_later_than_one_that_stands_still() -> None:
    talk = Conversation()
    calls = [talk.call("progress <n> %", ("status", "job"), length=n) for n in range(9, 20)]
    assert [index for index, _ in feed(Detector(), calls)] == [6]


def test_a_cycle_of_two_actions_is_a_loop_after_three_turns() -> None:
    talk = Conversation()
    calls = [talk.call("question", ("read", "r"), role="user")]
    for _ in range(5):
        calls += [talk.call("file", ("test", "t")), talk.call("failed", ("read", "r"))]
    told = feed(Detector(), calls)
    assert [index for index, _ in told] == [6]
    assert (told[0][1].period, told[0][1].repeats, told[0][1].calls) == (2, 3, 7)


def test_the_same_canned_message_without_a_tool_call_is_a_loop() -> None:
    talk = Conversation()
    calls = [talk.call("please proceed", role="user", reply=f"r{n}") for n in range(9)]
    told = feed(Detector(), calls)
    assert [(index, verdict.rule) for index, verdict in told] == [(CANNED - 1, Rule.CANNED_MESSAGE)]
    assert told[0][1].cost == COST * CANNED


@pytest.mark.parametrize("grow", [0, 7])
def test_the_same_question_in_fresh_or_busy_conversations_is_no_loop(grow: int) -> None:
    talk = Conversation()
    calls = [talk.call("summarise this", role="user", reply="fine", grow=grow) for _ in range(20)]
    told = [verdict.rule for _, verdict in feed(Detector(), calls)]
    assert Rule.CANNED_MESSAGE not in told
    if grow == 0:
        assert told == []


def test_a_loop_that_stopped_and_came_back_is_told_again() -> None:
    talk, detector = Conversation(), Detector()
    first = searches(talk, 6)
    other = [talk.call("none", ("open", "u1")), talk.call("page", ("open", "u2"))]
    told = feed(detector, first + other + searches(talk, 6))
    assert [index for index, _ in told] == [REPEATS, len(first) + len(other) + REPEATS]


def test_the_loop_is_over_for_a_reader_once_something_new_happens() -> None:
    talk, detector = Conversation(), Detector()
    calls = searches(talk, 6)
    feed(detector, calls)
    assert detector.ongoing(calls[-1]) is not None
    last = talk.call("something new", ("open", "u1"))
    assert detector.observe(last) is None
    assert detector.ongoing(last) is None


def test_a_failed_request_and_its_retry_do_not_hide_a_loop() -> None:
    talk, calls = Conversation(), []
    for call in searches(talk, 6):
        assert call.fingerprint is not None
        failed = replace(call, status=CallStatus.ERROR, fingerprint=replace(call.fingerprint, tools=()))
        calls += [failed, call]
    assert [index for index, _ in feed(Detector(), calls)] == [2 * REPEATS + 1]


def test_a_call_that_comes_too_late_is_passed_over() -> None:
    talk, detector = Conversation(), Detector()
    calls = searches(talk, REPEATS)
    late = replace(talk.call("else", ("open", "u1")), started_at=START - timedelta(seconds=1))
    assert [index for index, _ in feed(detector, [*calls[:3], late, *calls[3:]])] == [REPEATS + 1]


def test_sessions_do_not_mix() -> None:
    one, two = Conversation(session="s1"), Conversation(session="s2")
    mixed = [call for pair in zip(searches(one, 3), searches(two, 3), strict=True) for call in pair]
    assert feed(Detector(), mixed) == []


def test_without_a_session_the_trace_binds_calls_and_else_the_key_and_the_system_prompt() -> None:
    call = replace(Conversation().call("x", ("search", "a")), tags=Tags(agent="crawler"))
    assert stream_key(call)[0] == "key"
    assert "5e5e" in stream_key(call)
    traced = replace(call, parent_span_id="00000000000000ff")
    assert stream_key(traced) == ("trace", "shop", "crawler", call.trace_id)


def test_memory_is_bounded_by_the_number_of_streams() -> None:
    detector = Detector(max_streams=3)
    for n in range(50):
        feed(detector, searches(Conversation(session=f"s{n}"), 2))
    assert len(detector._streams) == 3
    assert feed(detector, searches(Conversation(session="s49"), REPEATS))


def test_calls_without_fingerprints_are_no_loop() -> None:
    calls = [replace(call, fingerprint=None) for call in searches(Conversation(), 10)]
    assert feed(Detector(), calls) == []
