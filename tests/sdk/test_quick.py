"""A quick dataclass can't be told from the one that dataclasses makes."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from spendwatch import calls
from spendwatch.calls import LLMCall, Tags, TokenUsage
from spendwatch.quick import maker, quick

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FACTS: dict[str, Any] = {
    "trace_id": "1" * 32, "span_id": "2" * 16, "started_at": NOON, "duration_us": 5, "provider_name": "openai",
}  # fmt: skip
CLASSES = [calls.LLMCall, calls.PricedCall, calls.TokenUsage, calls.Tags, calls.Fingerprint, calls.ToolFingerprint]


def test_a_quick_call_is_a_frozen_dataclass() -> None:
    call = LLMCall(**FACTS)
    assert type(call) is LLMCall
    assert call == replace(call) == copy.copy(call)
    assert pickle.loads(pickle.dumps(TokenUsage(input_tokens=3))) == TokenUsage(input_tokens=3)
    with pytest.raises(FrozenInstanceError):
        call.trace_id = "3" * 32  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        call.not_a_field = 1  # type: ignore[attr-defined]
    assert not hasattr(call, "__dict__")


def test_defaults_and_missing_facts_are_those_of_the_dataclass() -> None:
    call = LLMCall(**FACTS)
    assert (call.usage, call.tags, call.attributes, call.source) == (TokenUsage(), Tags(), {}, "sdk")
    assert call.tags.extra is calls.NOTHING
    with pytest.raises(TypeError, match="provider_name"):
        LLMCall(**{name: value for name, value in FACTS.items() if name != "provider_name"})
    with pytest.raises(TypeError, match="colour"):
        LLMCall(**FACTS, colour="red")


@pytest.mark.parametrize("cls", CLASSES)
def test_a_maker_takes_the_fields_by_place(cls: type[Any]) -> None:
    values = {one.name: f"{one.name}!" for one in fields(cls)}
    assert maker(cls)(*values.values()) == cls(**values)
    assert type(maker(cls)(*values.values())) is cls


def test_each_object_gets_a_default_of_its_own() -> None:
    @quick
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Holder:
        items: list[int] = field(default_factory=list)

    one, other = Holder(), Holder()
    one.items.append(1)
    assert (one.items, other.items) == ([1], [])


def test_a_class_that_checks_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="Checked"):

        @quick
        @dataclass(frozen=True, slots=True, kw_only=True)
        class Checked:
            x: int

            def __post_init__(self) -> None:
                raise ValueError(self.x)
