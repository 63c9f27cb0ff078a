"""kill -9 during traffic: whatever dies, each call whose end the app saw is in ClickHouse, and only once."""

import os
import signal
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.conftest import House
from tests.fakes.openrouter import OpenRouter
from tests.server.processes import eventually

COST = Decimal("0.0021344")
CALLS = 60


def assert_once_each(house: House, ids: list[str]) -> None:
    """Every id is stored once, at its exact cost."""
    wanted = Counter(ids)

    def found() -> dict[str, list[Decimal]]:
        costs: dict[str, list[Decimal]] = {}
        for reply_id, cost in house.stored():
            if reply_id in wanted:
                costs.setdefault(reply_id, []).append(cost)
        return costs

    eventually(lambda: found().keys() == wanted.keys(), "every call the app saw finished is stored")
    assert found() == {reply_id: [COST] for reply_id in ids}


@pytest.mark.parametrize("part", ["store", "ingest", "web"])
def test_a_part_killed_in_the_middle_of_traffic_loses_and_doubles_nothing(
    house: House, openrouter: OpenRouter, tmp_path: Path, part: str
) -> None:
    with house.app(openrouter, "--calls", str(CALLS), "--pace", "0.1", spool=tmp_path) as app:
        ids = [app.wait_for(r"gen-\S+").group(0) for _ in range(CALLS // 3)]
        house.kill(part)
        ids += [app.wait_for(r"gen-\S+").group(0) for _ in range(CALLS - len(ids))]
        assert app.wait() == 0
    with house.app(openrouter, "--calls", "1", "--pace", "3", spool=tmp_path) as successor:
        # What the first app could not deliver before it ended is left on disk for the next one.
        ids.append(successor.wait_for(r"gen-\S+").group(0))
        assert_once_each(house, ids)


def test_an_app_killed_in_the_middle_of_its_calls_loses_and_doubles_nothing(
    house: House, openrouter: OpenRouter, tmp_path: Path
) -> None:
    with house.app(openrouter, "--calls", "100000", "--pace", "0.02", spool=tmp_path) as app:
        for _ in range(CALLS):
            app.wait_for(r"gen-\S+")
        os.kill(app.pid, signal.SIGKILL)
        app.wait()
        ids = [line.strip() for line in app.output if line.startswith("gen-") and line.endswith("\n")]
    with house.app(openrouter, "--calls", "1", "--pace", "3", spool=tmp_path) as successor:
        ids.append(successor.wait_for(r"gen-\S+").group(0))
        assert_once_each(house, ids)


def test_a_worker_that_is_killed_is_started_again(house: House) -> None:
    before = house.pid("worker")
    house.kill("worker")
    assert house.pid("worker") != before
