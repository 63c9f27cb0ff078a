"""Facts that an instrumentation packs into one attribute as JSON -> attributes of their own.

{"usage": '{"input": 5, "details": {"cached": 3}}'} reads as usage.input and usage.details.cached. Only numbers, flags
and texts come out; the packed text itself does not go on. What was cut off in its middle is read up to there. Pure.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DEPTH = 4
_decoder = json.JSONDecoder()
# LiteLLM writes Python's notation. Its values are counts and names; a text with a quote in it is not read.
_PYTHON = (("'", '"'), ("None", "null"), ("True", "true"), ("False", "false"))


def unfold(attributes: Mapping[str, object], names: Sequence[str]) -> Mapping[str, object]:
    """The attributes, with the leaves of these ones (`name.path`) in their place."""
    if not any(name in attributes for name in names):
        return attributes
    out = {name: value for name, value in attributes.items() if name not in names}
    for name in names:
        packed = attributes.get(name)
        if isinstance(packed, str):
            for path, leaf in _leaves(name, members(packed), _DEPTH):
                out.setdefault(path, leaf)
    return out


def _leaves(path: str, members: Mapping[str, Any], depth: int) -> Iterator[tuple[str, object]]:
    for key, value in members.items():
        if isinstance(value, dict):
            if depth:
                yield from _leaves(f"{path}.{key}", value, depth - 1)
        elif isinstance(value, str | int | float):
            yield f"{path}.{key}", value


def members(packed: str) -> dict[str, Any]:
    """What a text of JSON, or of a Python dictionary, holds; nothing when it is neither."""
    if packed.startswith("{'"):
        for written, meant in _PYTHON:
            packed = packed.replace(written, meant)
    try:
        whole = json.loads(packed)
        return whole if isinstance(whole, dict) else {}
    except (ValueError, RecursionError):
        return _beginning(packed)


def _beginning(packed: str) -> dict[str, Any]:
    """The members before the place where a text was cut off."""
    found: dict[str, Any] = {}
    at = packed.find("{") + 1
    try:
        while at:
            at = _skip(packed, at, ",")
            key, at = _decoder.raw_decode(packed, at)
            value, at = _decoder.raw_decode(packed, _skip(packed, at, ":"))
            if isinstance(value, int | float) and at >= len(packed):
                break  # Its last digits may be missing.
            found[str(key)] = value
    except (ValueError, RecursionError):
        pass
    return found


def _skip(packed: str, at: int, mark: str) -> int:
    while at < len(packed) and (packed[at].isspace() or packed[at] == mark):
        at += 1
    return at
