"""One call of the real SDK, followed all the way: onto the admin's page, and against the statement to zero."""

import json
import re
from decimal import Decimal
from pathlib import Path

from tests.e2e.conftest import House
from tests.fakes.openrouter import OpenRouter
from tests.server.processes import eventually

COST = Decimal("0.0021344")
ACCOUNT = """
from collectors.models import OpenRouterAccount
OpenRouterAccount.objects.create(name="main", base_url={url!r}, management_key={key!r})
"""


def test_a_call_is_on_its_page_with_its_tokens_and_cost(house: House, openrouter: OpenRouter, tmp_path: Path) -> None:
    with house.app(openrouter, spool=tmp_path) as app:
        reply_id = app.wait_for(r"gen-\S+").group(0)
        with house.browser() as browser:
            where = f"/admin/spendwatch_server/call/?range=today&q={reply_id}"
            eventually(lambda: reply_id in browser.get(where).text, "the call is listed")
            link = re.search(r'href="(/admin/spendwatch_server/call/\d+/[^"]*)"', browser.get(where).text)
            assert link is not None
            page = browser.get(link.group(1)).text
        assert app.wait() == 0
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for figure in ("10,240", "8,192", "310", "openai/gpt-4.1-mini", "search", reply_id):
        assert figure in text
    cost = re.search(r'data-testid="cost-effective"[^>]*>(.*?)</span>', page, re.DOTALL)
    assert cost is not None
    assert "0.002134" in cost.group(1)


def test_the_same_calls_reconcile_with_the_statement_to_zero(
    house: House, openrouter: OpenRouter, tmp_path: Path
) -> None:
    openrouter.world.include_today = True
    with house.app(openrouter, "--calls", "4", spool=tmp_path) as app:
        ids = {app.wait_for(r"gen-\S+").group(0) for _ in range(4)}
        assert app.wait() == 0
    eventually(lambda: ids <= {found for found, _ in house.stored()}, "the calls are stored")
    house.manage("shell", "-c", ACCOUNT.format(url=openrouter.base_url, key=openrouter.management_key))
    house.manage("collect", "openrouter")
    day = max(generation.day for generation in openrouter.world.generations.values()).isoformat()
    found = json.loads(house.manage("reconcile", "--from", day, "--to", day, "--format", "json"), parse_float=Decimal)
    [only] = found["days"]
    assert (Decimal(only["statement_total"]), Decimal(only["variance_total"])) == (4 * COST, 0)
    assert only["variances"] == []
