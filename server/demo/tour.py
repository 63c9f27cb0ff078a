"""The tour: what there is to see, one claim after another, each checked against the world that made it.

A claim compares what Spendwatch shows with what the company, its OpenRouter and its Slack know on their own. Never
here: making anything happen.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
from django.apps import apps
from django.urls import reverse

from ledger.clickhouse import connection
from server import formats
from server.demo.seed import EXPORT_BUDGET, EXPORT_LIMIT, THRESHOLDS
from server.demo.world import HISTORY_DAYS, World
from server.env import Env
from spendwatch import money
from spendwatch.calls import CallStatus, Window
from spendwatch.clickhouse import queries

PAGE_SIZE = 500
CALLER = "server.demo"


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the tour, and whether it holds: expected and found are equal then."""

    sentence: str
    look: str
    """Where a person sees it."""
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        return self.expected == self.found


class Tour:
    """The claims about one world. `planted`: what was planted in OpenRouter's statement."""

    def __init__(self, env: Env, world: World, planted: Sequence[dict[str, Any]], password: str) -> None:
        self._env = env
        self._world = world
        self._planted = planted
        self._password = password

    def claims(self) -> Iterator[Claim]:
        """Each claim, looked up when its turn comes."""
        yield self._every_call_once()
        yield self._to_the_last_digit()
        yield self._on_the_page()
        yield from self._reconciled()
        yield self._runaway()
        yield self._budget()

    def _page(self, name: str) -> str:
        return f"{self._env.base_url}{reverse(f'admin:{name}')}"

    def _recorded(self) -> list[queries.StoredCall]:
        """Every call of OpenRouter's that was stored."""
        ch, now = connection(CALLER), datetime.now(UTC)
        window = Window(now - timedelta(days=HISTORY_DAYS + 2), now)
        found: list[queries.StoredCall] = []
        while True:
            page = queries.calls_page(
                ch, {"provider_name": ["openrouter"]}, window, page=len(found) // PAGE_SIZE + 1, page_size=PAGE_SIZE
            )
            found += page.calls
            if len(page.calls) < PAGE_SIZE:
                return found

    def _every_call_once(self) -> Claim:
        served = Counter(one["id"] for one in self._world.generations() if one["observed"])
        stored = Counter(one.call.response_id for one in self._recorded() if one.call.response_id)
        lost, twice = served - stored, stored - served
        return Claim(
            f"{served.total()} generations that OpenRouter served Larkfield's agents are recorded, each once",
            self._page("spendwatch_server_call_changelist"),
            (0, 0),
            (lost.total(), twice.total()),
        )

    def _to_the_last_digit(self) -> Claim:
        said = {
            one["id"]: money.parse(one["said"]["usage"]) or money.ZERO
            for one in self._world.generations()
            if one["observed"]
        }
        ended = [one for one in self._recorded() if one.call.status is CallStatus.OK]
        expected = sum((said[one.call.response_id or ""] for one in ended), Decimal(0))
        found = sum((one.call.reported_cost or money.ZERO for one in ended), Decimal(0))
        return Claim(
            f"their replies reported {formats.usd(expected)}, and that is recorded to the last digit",
            self._page("spendwatch_server_call_changelist"),
            money.text(expected),
            money.text(found),
        )

    def _on_the_page(self) -> Claim:
        now = datetime.now(UTC)
        month = Window(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0), now)
        expected = formats.usd(queries.spend(connection(CALLER), {}, month).cost)
        page = self._log_in().text
        shown = re.search(r'data-testid="spend-month"[^>]*>(.*?)</span>', page, re.DOTALL)
        found = re.sub(r"<[^>]+>", "", shown.group(1)).strip() if shown else "nothing"
        return Claim(f"the start page shows this month's spend: {expected}", self._page("index"), expected, found)

    def _log_in(self) -> httpx2.Response:
        login = self._page("login")
        with httpx2.Client(follow_redirects=True, timeout=30) as browser:
            form = browser.get(login)
            csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
            answer = browser.post(
                login,
                data={
                    "username": "admin",
                    "password": self._password,
                    "csrfmiddlewaretoken": csrf.group(1) if csrf else "",
                    "next": reverse("admin:index"),
                },
                headers={"Referer": login},
            )
            answer.raise_for_status()
            return answer

    def _reconciled(self) -> Iterator[Claim]:
        variances = apps.get_model("spendwatch_ledger", "Variance")._default_manager.open()
        found = {(row.day.isoformat(), row.key_hash, row.variance_class): money.text(row.amount) for row in variances}
        where = self._page("spendwatch_ledger_variance_changelist")
        for planted in self._planted:
            cell = (planted["day"], planted["key_hash"], planted["kind"])
            amount = money.parse(planted["amount"]) or money.ZERO
            yield Claim(
                f"on {planted['day']} OpenRouter's statement differs by {formats.usd(amount, 6)} on "
                f"{planted['model']}; reconciliation calls it {planted['kind']}",
                where,
                money.text(amount),
                found.pop(cell, "no such variance"),
            )
        yield Claim("everything else on fourteen days agrees to the last digit", where, {}, found)

    def _incidents(self, kind: str) -> Any:
        return apps.get_model("spendwatch_alerts", "Incident")._default_manager.filter(kind=kind)

    def _roots(self, title: str) -> int:
        return sum(1 for message in self._world.messages() if message["thread_ts"] is None and title in message["text"])

    def _runaway(self) -> Claim:
        incidents = self._incidents("loop")
        first = (
            apps.get_model("spendwatch_alerts", "Delivery")
            ._default_manager.filter(incident__in=incidents, is_root=True)
            .first()
        )
        loops = first.facts.get("loops", []) if first else []
        repeats = max((loop["repeats"] for loop in loops), default=0)
        cost = sum((Decimal(loop["cost"]) for loop in loops), Decimal(0))
        return Claim(
            f"the agent crawler had repeated one search {repeats} times for {formats.usd(cost)} when Slack heard "
            "of it, in one thread",
            f"{self._world.slack_url}/",
            (1, 1),
            (incidents.count(), self._roots("crawler")),
        )

    def _budget(self) -> Claim:
        told = [message["text"] for message in self._world.messages() if EXPORT_BUDGET in message["text"]]
        return Claim(
            f"the budget “{EXPORT_BUDGET}” of {formats.usd(EXPORT_LIMIT)} crossed {THRESHOLDS[0]} % and "
            f"{THRESHOLDS[1]} %: one message each",
            f"{self._world.slack_url}/",
            len(THRESHOLDS),
            len(told),
        )
