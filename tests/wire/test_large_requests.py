"""A large request is read from its ends, and what is found there is the request's, never a quoted one's."""

import json
from typing import Any

import pytest

from spendwatch.wire.requests import LARGE, read_body

HUGE = 'she said "yes" \\ and ' * (LARGE // 10)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("last", "from_ends"),
    [
        ({"role": "user", "content": HUGE}, True),
        ({"role": "user", "content": HUGE + "\\"}, True),
        ({"role": "user", "content": HUGE + '"'}, True),
        ({"role": "user", "content": HUGE, "name": "bob"}, True),
        ({"role": "user", "content": [{"role": "user", "content": HUGE}]}, False),
        ({"role": "user", "content": [{"role": "user", "content": HUGE}], "name": "bob"}, False),
    ],
    ids=["text", "ends in a backslash", "ends in a quote", "a member after it", "nested", "nested, a member after it"],
)
def test_a_huge_last_message_is_found_whole(last: dict[str, Any], from_ends: bool, separators: tuple[str, str]) -> None:
    first = {"role": "system", "content": "be brief"}
    body = json.dumps({"messages": [first, last], "model": "m", "stream": True}, separators=separators).encode()
    asked = read_body(body, "application/json")
    assert (asked.model, asked.stream) == ("m", True)
    if from_ends:
        assert asked.last is not None
        assert json.loads(bytes(asked.last)) == last
    else:
        assert asked.last is None
        assert json.loads(bytes(asked.messages[-1])) == last
