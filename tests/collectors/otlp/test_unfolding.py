"""Facts packed into one attribute as JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.otlp.spans import MAX_TEXT
from collectors.otlp.unfolding import unfold

USAGE = (
    '{"input": 5, "details": {"cached": 3, "deep": {"a": {"b": {"c": 1}}}}, "model": "m", "none": null, "list": [1]}'
)


def test_what_is_in_it_becomes_attributes_and_the_text_itself_goes() -> None:
    assert unfold({"usage": USAGE, "other": 1}, ("usage", "cost")) == {
        "other": 1,
        "usage.input": 5,
        "usage.details.cached": 3,
        "usage.details.deep.a.b.c": 1,
        "usage.model": "m",
    }


def test_attributes_without_any_are_left_as_they_are() -> None:
    attributes: dict[str, object] = {"other": 1}
    assert unfold(attributes, ("usage",)) is attributes


@pytest.mark.parametrize(
    ("packed", "found"),
    [
        ("{'input': 5, 'details': {'cached': None, 'a': True}}", {"u.input": 5, "u.details.a": True}),
        ("{}", {}),
        ("[1, 2]", {}),
        ("5", {}),
        ("not json", {}),
        ("", {}),
        ("[" * 1000, {}),
        ('{"a": ' * 170, {}),
        # Cut off in the middle: a number may have lost digits, a text is not whole.
        ('{"a": 1, "b": {"c": 2}, "d": 12', {"u.a": 1, "u.b.c": 2}),
        ('{"a": 1, "b": {"c": 2', {"u.a": 1}),
        ('{"a": 1, "b": "hal', {"u.a": 1}),
        ('{"a": 1, "b', {"u.a": 1}),
        ('{"a": 1,', {"u.a": 1}),
        ("{", {}),
    ],
)
def test_it_is_read_as_far_as_it_can_be(packed: str, found: dict[str, object]) -> None:
    assert unfold({"u": packed}, ("u",)) == found


def test_what_is_no_text_is_left_out() -> None:
    assert unfold({"u": 5}, ("u",)) == {}


@given(st.text(max_size=MAX_TEXT))
def test_no_text_breaks_it(packed: str) -> None:
    for beginning in ("", "{", "{'", '{"a": '):
        unfold({"u": beginning + packed}, ("u",))
