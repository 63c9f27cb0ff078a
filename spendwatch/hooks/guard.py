"""The one place where the SDK's own faults end: counted, said once each, kept away from the app.

Invariant: nothing that goes wrong in watching a call reaches the app's call. Under a test (SPENDWATCH_STRICT=1, or
pytest is running one) a fault is raised again, so that it is seen. Never here: handling what the network does; that
is not a fault of ours.
"""

import functools
import logging
import os
import traceback
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

log = logging.getLogger("spendwatch")

P = ParamSpec("P")
R = TypeVar("R")

faults: Counter[str] = Counter()
"""How often watching failed, by what it was doing and how."""


def strict() -> bool:
    """Whether faults are raised again: SPENDWATCH_STRICT=1 or under pytest; SPENDWATCH_STRICT=0 turns it off."""
    wish = os.environ.get("SPENDWATCH_STRICT")
    if wish is not None:
        return wish not in ("", "0")
    return "PYTEST_CURRENT_TEST" in os.environ


def caught(doing: str, exc: Exception) -> None:
    """A fault while `doing`: count it, say it the first time, raise it again when strict."""
    key = f"{doing}: {type(exc).__name__}"
    faults[key] += 1
    if faults[key] == 1:
        log.warning(
            "spendwatch failed while %s (%s). Your request is unaffected; its spend may not be recorded. "
            "Further ones of this kind are only counted.\n%s",
            doing,
            type(exc).__name__,
            # Without the exception's text, which may quote what it stumbled over.
            "".join(traceback.format_tb(exc.__traceback__)).rstrip(),
        )
    if strict():
        raise exc


def shielded(doing: str) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Decorate what may fail without harm: its faults go to caught() and its result is then None."""

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return function(*args, **kwargs)
            except Exception as exc:  # noqa: BLE001  # this is the place
                caught(doing, exc)
                return None

        return wrapper

    return decorate
