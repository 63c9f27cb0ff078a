"""Larkfield's app: two weeks of ordinary work, then today's, until it is told to stop.

Says what it does as JSON lines: {"event": "history", "day": n, "days": m}, then {"event": "live"},
{"event": "runaway", "repeat": n}, {"event": "exported", "calls": n}, {"event": "told", "finished": {...}}.
"""

import argparse
import json
import random
import signal
import threading
from datetime import UTC, datetime, timedelta

import spendwatch
from tests.fakes.company.agents import Agents

RUNAWAY_REPEATS = 14
EXPORT_CALLS = 2


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.company", description=__doc__)
    parser.add_argument("--openrouter", required=True, help="base URL of OpenRouter's API")
    parser.add_argument("--history-days", type=int, default=14)
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    spendwatch.instrument()
    agents = Agents(arguments.openrouter)
    agents.name_keys()
    history(agents, arguments.history_days, stop)
    spendwatch.flush(timeout_s=60)
    say(event="live", finished=agents.finished)
    # A scene of its own thread: the shop's ordinary traffic does not wait for the crawler.
    scene = threading.Thread(target=drama, args=(Agents(arguments.openrouter, seed=8), stop), daemon=True)
    scene.start()
    while not stop.wait(1.5):
        ordinary(agents)
    spendwatch.flush()


def say(**facts: object) -> None:
    """One JSON line."""
    print(json.dumps(facts), flush=True)


def history(agents: Agents, days: int, stop: threading.Event) -> None:
    """Work on each of the last `days` completed UTC days, between 8 and 18 o'clock."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    dice = random.Random(11)
    for back in range(days, 0, -1):
        if stop.is_set():
            return
        day = midnight - timedelta(days=back)
        busy = 1.0 if day.weekday() < 5 else 0.5

        def moment(day: datetime = day) -> datetime:
            return day + timedelta(seconds=dice.randrange(8 * 3600, 18 * 3600))

        for work, times in (
            (agents.helpdesk, 10),
            (agents.ranker, 6),
            (agents.summariser, 4),
            (agents.crawler, 2),
            (agents.analyst, 1),
        ):
            for _ in range(max(1, round(times * busy))):
                work(moment())
        agents.ranker(moment(), think=True)
        if back == 3:
            agents.disconnect(moment())
        say(event="history", day=days - back + 1, days=days)


def ordinary(agents: Agents) -> None:
    """A moment of ordinary work."""
    agents.helpdesk()
    agents.ranker()
    agents.summariser()


def drama(agents: Agents, stop: threading.Event) -> None:
    """What goes wrong today: a rate limit, a broken stream, a reader who leaves, a dear export, a runaway."""
    agents.rate_limited()
    agents.failing()
    agents.disconnect()
    say(event="faults")
    for repeat in agents.runaway(RUNAWAY_REPEATS):
        say(event="runaway", repeat=repeat)
        if repeat in (2, 12):
            agents.export()
            say(event="exported", calls=1 if repeat == 2 else EXPORT_CALLS)
        if stop.wait(1.5):
            return
    spendwatch.flush()
    say(event="told", finished=agents.finished)


if __name__ == "__main__":
    main()
