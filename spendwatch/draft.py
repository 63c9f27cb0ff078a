"""Making frozen values in a hurry.

A frozen dataclass sets each field by a function call, which for the 34 fields of a call costs more than pricing it.
`loose(T)` is a class with T's fields and slots that isn't frozen. An instance becomes a T, frozen from then on, by
`instance.__class__ = T`; until then its maker may still change it. Never here: what the fields mean.
"""

from dataclasses import MISSING, field, fields, make_dataclass
from typing import Any


def loose(frozen: type) -> Any:
    """The unfrozen twin of a frozen, slotted, keyword-only dataclass. Same fields, same defaults."""
    twins = []
    for one in fields(frozen):
        if one.default is not MISSING:
            twin = field(default=one.default)
        elif one.default_factory is not MISSING:
            twin = field(default_factory=one.default_factory)
        else:
            twin = field()
        twins.append((one.name, object, twin))
    return make_dataclass(f"Loose{frozen.__name__}", twins, slots=True, kw_only=True, eq=False, repr=False)
