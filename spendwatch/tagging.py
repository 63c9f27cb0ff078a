"""Who a call is for: the tags that hold in the current context.

tags() is a context manager and a decorator, for plain and async code and for generators of both kinds. Tags nest: an
inner one adds to and overrides the outer ones, and is gone when its block ends. They live in a context variable, so
an asyncio task has those of its creator, and a thread those of the context it was started in (asyncio.to_thread
copies it; a bare Thread or an executor doesn't, use contextvars.copy_context().run).
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, cast

from spendwatch.calls import TAG_NAMES, Tags

MAX_TAG_LENGTH = 256
"""Characters of a name or a value; what is longer is cut."""

_EMPTY = Tags()
_current: ContextVar[Tags] = ContextVar("spendwatch_tags", default=_EMPTY)

F = TypeVar("F", bound=Callable[..., Any])


def current(defaults: Tags = _EMPTY) -> Tags:
    """The tags in force here; `defaults` (those of the process) fill what none of them says."""
    here = _current.get()
    if here is _EMPTY:
        return defaults
    if defaults is _EMPTY:
        return here
    values = {name: getattr(here, name) or getattr(defaults, name) for name in TAG_NAMES}
    extra = here.extra if not defaults.extra else MappingProxyType({**defaults.extra, **here.extra})
    return Tags(**values, extra=extra)


def make_tags(base: Tags, values: Mapping[str, object]) -> Tags:
    """`base` with `values` over it. None leaves a tag as it is. Raises TypeError for a name that is not text."""
    known: dict[str, str | None] = {name: getattr(base, name) for name in TAG_NAMES}
    extra = dict(base.extra)
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"expected a tag's name to be text, found {name!r}")
        if value is None:
            continue
        text = str(value)[:MAX_TAG_LENGTH]
        if name in known:
            known[name] = text
        else:
            extra[name[:MAX_TAG_LENGTH]] = text
    return Tags(**known, extra=MappingProxyType(extra) if extra else base.extra)


class tags:  # noqa: N801  # read as a verb phrase, like contextlib.suppress
    """Tag every call made in a block or by a function.

    team, project, agent, session, user, feature and environment have columns of their own; any further name is kept
    too. Values are turned into text; None leaves a tag as it is.

        with spendwatch.tags(team="search", agent="crawler"):
            client.chat.completions.create(...)

        @spendwatch.tags(feature="summary")
        async def summarise(text): ...
    """

    __slots__ = ("_tokens", "_values")

    def __init__(
        self,
        *,
        team: str | None = None,
        project: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        user: str | None = None,
        feature: str | None = None,
        environment: str | None = None,
        **extra: object,
    ) -> None:
        self._values: dict[str, object] = {
            "team": team,
            "project": project,
            "agent": agent,
            "session": session,
            "user": user,
            "feature": feature,
            "environment": environment,
            **extra,
        }
        make_tags(_EMPTY, self._values)
        self._tokens: list[Token[Tags]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_current.set(make_tags(_current.get(), self._values)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _reset(self._tokens.pop())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator or async generator function."""
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
                steps = _Steps(self._values)
                inner = function(*args, **kwargs)
                send: Callable[[Any], Any] = inner.asend
                value: Any = None
                while True:
                    with steps.step():
                        try:
                            item = await send(value)
                        except StopAsyncIteration:
                            return
                    try:
                        value, send = (yield item), inner.asend
                    except GeneratorExit:
                        with steps.step():
                            await inner.aclose()
                        raise
                    except BaseException as exc:  # noqa: BLE001  # handed to the generator, as a plain one would be
                        value, send = exc, inner.athrow

            return cast(F, async_generator)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
                steps = _Steps(self._values)
                inner = function(*args, **kwargs)
                send: Callable[[Any], Any] = inner.send
                value: Any = None
                while True:
                    with steps.step():
                        try:
                            item = send(value)
                        except StopIteration as stop:
                            return stop.value
                    try:
                        value, send = (yield item), inner.send
                    except GeneratorExit:
                        with steps.step():
                            inner.close()
                        raise
                    except BaseException as exc:  # noqa: BLE001  # as above
                        value, send = exc, inner.throw

            return cast(F, generator)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._fresh():
                    return await function(*args, **kwargs)

            return cast(F, coroutine)

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return function(*args, **kwargs)

        return cast(F, plain)

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        # A decorated function may run many times at once: the token is this run's own, not the shared object's.
        token = _current.set(make_tags(_current.get(), self._values))
        try:
            yield
        finally:
            _reset(token)


class _Steps:
    """The tags of a generator's body: in force while it runs, put away while it waits at a yield."""

    __slots__ = ("_inside", "_values")

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self._inside: Tags | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        if self._inside is None:
            self._inside = make_tags(_current.get(), self._values)
        token = _current.set(self._inside)
        try:
            yield
        finally:
            # Remembered, because a block inside the generator may be open across the yield.
            self._inside = _current.get()
            _reset(token)


def _reset(token: Token[Tags]) -> None:
    try:
        _current.reset(token)
    except ValueError:
        # Left in another context than entered (an async generator closed by the event loop): that context ends anyway.
        return
