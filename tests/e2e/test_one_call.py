"""One call of the real SDK, followed all the way: onto the admin's page, and against the statement to zero."""

import json
import re
from decimal import Decimal
from pathlib import Path

import httpx2

from tests.e2e.conftest import House
from tests.fakes.openrouter import OpenRouter
from tests.server.processes import eventually

COST = Decimal("0.0021344")
ACCOUNT = """
from collectors.models import OpenRouterAccount
OpenRouterAccount.objects.create(name="main", base_url={url!r}, management_key={key!r})
"""


def test_a_call_is_on_its_page_and_reconciles_with_the_statement_to_zero(
    house: House, openrouter: OpenRouter, tmp_path: Path
) -> None:
    openrouter.world.include_today = True
    with house.app(openrouter, spool=tmp_path) as app:
        reply_id = app.wait_for(r"gen-\S+").group(0)
        with house.browser() as browser:
            page = page_of(browser, reply_id)
        assert app.wait() == 0
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for figure in ("10,240", "8,192", "310", "openai/gpt-4.1-mini", "search", reply_id):
        assert figure in text
    cost = re.search(r'data-testid="cost-effective"[^>]*>(.*?)</span>', page, re.DOTALL)
    assert cost is not None
    assert "0.0021344" in cost.group(1)

    house.manage("shell", "-c", ACCOUNT.format(url=openrouter.base_url, key=openrouter.management_key))
    house.manage("collect", "openrouter")
    day = openrouter.world.generations[reply_id].day.isoformat()
    found = json.loads(house.manage("reconcile", "--from", day, "--to", day, "--format", "json"))
    [only] = found["days"]
    assert (Decimal(only["statement"]), Decimal(only["recorded"]), only["variances"]) == (COST, COST, [])


def page_of(browser: httpx2.Client, reply_id: str) -> str:
    """The page of one call, found by searching for its reply's id."""
    found: list[str] = []

    def listed() -> bool:
        listing = browser.get("/admin/spendwatch_server/call/", params={"range": "day", "search": reply_id}).text
        found.extend(re.findall(r'href="(/admin/spendwatch_server/call/\d+/[^"]*)"', listing))
        return bool(found)

    eventually(listed, "the call is listed")
    return browser.get(found[0]).text
