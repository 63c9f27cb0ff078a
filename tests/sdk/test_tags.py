"""Tags hold where they should and nowhere else: nested, decorated, in tasks, threads and generators."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

import spendwatch
from spendwatch.calls import Tags
from spendwatch.tagging import current


def here() -> tuple[str | None, str | None]:
    tags = current()
    return tags.team, tags.agent


def test_inner_tags_add_to_and_override_outer_ones() -> None:
    with spendwatch.tags(team="a", agent="x", ticket=7):
        with spendwatch.tags(team="b", note="n"):
            assert here() == ("b", "x")
            assert current().extra == {"ticket": "7", "note": "n"}
        assert here() == ("a", "x")
        assert current().extra == {"ticket": "7"}
    assert current() == Tags()


def test_none_leaves_a_tag_as_it_is() -> None:
    with spendwatch.tags(team="a"), spendwatch.tags(team=None, agent="x"):
        assert here() == ("a", "x")


def test_tags_are_gone_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), spendwatch.tags(team="a"):
        _ = 1 / 0
    assert here() == (None, None)


def test_the_processs_own_tags_fill_the_gaps() -> None:
    defaults = Tags(team="p", environment="prod", extra={"k": "1"})
    with spendwatch.tags(team="a", z="2"):
        assert current(defaults) == Tags(team="a", environment="prod", extra={"k": "1", "z": "2"})
    assert current(defaults) is defaults


def test_one_object_can_be_entered_again_and_again() -> None:
    both = spendwatch.tags(team="a")
    with both:
        with both:
            assert here() == ("a", None)
        assert here() == ("a", None)
    assert here() == (None, None)


def test_a_decorated_function_runs_with_them() -> None:
    @spendwatch.tags(team="a")
    def function(n: int) -> tuple[int, object]:
        return n, here()

    assert function(3) == (3, ("a", None))
    assert function.__name__ == "function"
    assert here() == (None, None)


def test_a_decorated_coroutine_keeps_them_over_its_awaits() -> None:
    @spendwatch.tags(team="a")
    async def one(agent: str) -> object:
        with spendwatch.tags(agent=agent):
            await asyncio.sleep(0)
            return here()

    async def main() -> list[object]:
        async with spendwatch.tags(team="outer"):
            found = list(await asyncio.gather(*(one(str(n)) for n in range(5))))
            assert here() == ("outer", None)
        return found

    assert asyncio.run(main()) == [("a", str(n)) for n in range(5)]


def test_a_decorated_generator_has_them_while_it_runs_and_its_caller_never() -> None:
    @spendwatch.tags(team="a")
    def generator() -> Generator[object, int, str]:
        with spendwatch.tags(agent="x"):
            sent = yield here()
            assert sent == 7
            # Still in force after the caller had its turn.
            try:
                yield here()
            except KeyError:
                yield "caught"
        return "done"

    def outer() -> Generator[object, int, str]:
        return (yield from running)

    running = generator()
    around = outer()
    assert next(around) == ("a", "x")
    assert here() == (None, None)
    assert around.send(7) == ("a", "x")
    assert around.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stop:
        next(around)
    assert stop.value.value == "done"
    assert here() == (None, None)


def test_a_decorated_generator_is_closed_with_its_tags() -> None:
    seen: list[object] = []

    @spendwatch.tags(team="a")
    def generator() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            seen.append(here())

    running = generator()
    next(running)
    running.close()
    assert seen == [("a", None)]


def test_a_decorated_async_generator_too() -> None:
    seen: list[object] = []

    @spendwatch.tags(team="a")
    async def generator() -> AsyncGenerator[object, int]:
        try:
            sent = yield here()
            yield sent
            yield here()
        finally:
            seen.append(here())

    async def main() -> None:
        running = generator()
        assert await anext(running) == ("a", None)
        assert here() == (None, None)
        assert await running.asend(5) == 5
        assert await anext(running) == ("a", None)
        await running.aclose()
        assert seen == [("a", None)]
        assert [item async for item in generator()] == [("a", None), None, ("a", None)]

    asyncio.run(main())


def test_threads_of_asyncio_have_the_tags_and_bare_ones_do_not() -> None:
    bare: list[object] = []

    async def main() -> object:
        with spendwatch.tags(team="a"):
            thread = threading.Thread(target=lambda: bare.append(here()))
            thread.start()
            thread.join()
            return await asyncio.to_thread(here)

    assert asyncio.run(main()) == ("a", None)
    assert bare == [(None, None)]


def test_a_thread_pool_has_the_tags_that_are_handed_to_it() -> None:
    with ThreadPoolExecutor(1) as pool, spendwatch.tags(team="a"):
        assert pool.submit(here).result() == (None, None)
        assert pool.submit(contextvars.copy_context().run, here).result() == ("a", None)
        assert pool.submit(spendwatch.tags(agent="x")(here)).result() == (None, "x")
        # The worker keeps nothing of it for the next one.
        assert pool.submit(here).result() == (None, None)
    assert here() == (None, None)


def test_long_values_are_cut() -> None:
    with spendwatch.tags(team="x" * 1000):
        assert len(current().team or "") == 256
