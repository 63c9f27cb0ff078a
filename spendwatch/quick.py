"""Frozen dataclasses that are made as fast as open ones.

A frozen dataclass with slots writes each of its fields through object.__setattr__, which for the some seventy fields of
one call took 20 µs. Here the new object is of an open class of the same shape while its fields are written, and of its
own class from then on; nobody else holds it before. Invariant: what comes out can't be told from what the dataclass's
own `__init__` makes. Never here: what the fields mean.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, cast

T = TypeVar("T", bound=type[Any])
V = TypeVar("V")

_set = object.__setattr__


def quick(cls: T) -> T:
    """The class decorator; stands above `@dataclass(frozen=True, slots=True, kw_only=True)`.

    Raises TypeError for a class that it can't be applied to: one with `__post_init__`, or whose base has fields.
    """
    names = tuple(field.name for field in fields(cls))
    if hasattr(cls, "__post_init__") or tuple(cls.__slots__) != names:
        raise TypeError(f"{cls.__name__}: expected a frozen dataclass with slots, without __post_init__ and bases")
    scope: dict[str, Any] = {"_set": _set, "_cls": cls, "_open": type(cls.__name__, (), {"__slots__": names})}
    parameters, body = [], []
    for field in fields(cls):
        name, value = field.name, field.name
        if field.default is not MISSING:
            scope[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        elif field.default_factory is not MISSING:
            scope[f"_factory_{name}"], scope["_missing"] = field.default_factory, MISSING
            parameters.append(f"{name}=_missing")
            value = f"_factory_{name}() if {name} is _missing else {name}"
        else:
            parameters.append(name)
        body.append(f" self.{name} = {value}\n")
    source = (
        f"def __init__(self, *, {', '.join(parameters)}):\n _set(self, '__class__', _open)\n"
        + "".join(body)
        + " self.__class__ = _cls\n"
        + f"def make({', '.join(names)}):\n self = _new(_open)\n"
        + "".join(f" self.{name} = {name}\n" for name in names)
        + " self.__class__ = _cls\n return self\n"
    )
    scope["_new"] = object.__new__
    exec(source, scope)  # noqa: S102  # of our own fields' names, as dataclasses does
    made = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = cls.__init__.__annotations__
    cls.__init__ = made
    _MAKERS[cls] = scope["make"]
    return cls


_MAKERS: dict[type[Any], Callable[..., Any]] = {}


def maker(cls: type[V]) -> Callable[..., V]:
    """A constructor of a quick class that takes every field by its place, for who makes thousands in a row."""
    return cast("Callable[..., V]", _MAKERS[cls])
