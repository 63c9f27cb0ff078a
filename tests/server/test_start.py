"""The start page."""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

from spendwatch.calls import CostBasis
from tests.server.processes import free_ports
from tests.server.some_calls import call


class _Figures(HTMLParser):
    """The texts and exact amounts of a page's elements with a data-testid."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: dict[str, str] = {}
        self.usd: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        inside = next((name for _, name in reversed(self._open) if name), None)
        if "data-usd" in given and inside:
            self.usd.setdefault(inside, given["data-usd"] or "")
        if tag not in ("input", "link", "meta", "img", "br", "hr"):
            self._open.append((tag, given.get("data-testid")))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside = next((name for _, name in reversed(self._open) if name), None)
        if inside:
            self.text[inside] = (self.text.get(inside, "") + data).strip()


def start(client: Client, query: str = "") -> _Figures:
    reply = client.get(f"/admin/{query}")
    assert reply.status_code == 200
    return _Figures(reply.content.decode())


def test_the_page_sums_today_and_this_month_exactly(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending(call(1, cost="0.123456789012"), call(2, cost="1.000000000001"), call(3, cost=None))
    page = start(client_of("viewer"))
    # The test may run just after midnight: what started a minute ago is then yesterday's, or last month's.
    assert page.usd["spend-month"] in ("1.123456789013", "0")
    if page.usd["spend-today"] != "0":
        assert page.usd["spend-today"] == "1.123456789013"
        assert page.text["spend-today"] == "$1.12"
        assert page.text["unpriced-month"] == "1"
        assert page.text["calls-month"] == "3"


def test_rolled_up_and_fresh_calls_are_counted_once(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    client = client_of("viewer")
    spending(call(1, cost="0.5"), rolled=True)
    spending(call(1, cost="0.5"), call(2, cost="0.25"))
    assert start(client).usd["spend-month"] in ("0.75", "0")


def test_an_empty_service_shows_the_one_line_to_install(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending()
    text = client_of("viewer").get("/admin/").content.decode()
    assert "import spendwatch; spendwatch.instrument()" in text
    assert "SPENDWATCH_ENDPOINT=http://127.0.0.1:4318" in text


def test_tables_name_teams_and_models_and_what_has_none(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending(
        call(1, cost="3", tags={"team": "search"}),
        call(2, cost="1", request_model="claude-sonnet-5"),
        *[call(10 + n, cost="0.001", request_model=f"model-{n}") for n in range(20)],
    )
    page = client_of("viewer").get("/admin/").content.decode()
    if 'data-usd="0"' in page.split('data-testid="spend-month"')[1][:80]:
        pytest.skip("the month has just begun: the calls of a minute ago are last month's")
    teams = re.findall(r'<tr data-key="([^"]*)"', page.split('data-testid="by-team"')[1].split("</table>")[0])
    models = re.findall(r'<tr data-key="([^"]*)"', page.split('data-testid="by-model"')[1].split("</table>")[0])
    assert teams == ["search", "(no team)"]
    assert models[:2] == ["gpt-5.2", "claude-sonnet-5"]
    assert models[-1] == "all others"
    amounts = re.findall(r'data-usd="([^"]*)"', page.split('data-testid="by-model"')[1].split("</table>")[0])
    assert sum(map(Decimal, amounts[:-1])) == Decimal(amounts[-1]) == Decimal("4.02")


def test_without_clickhouse_the_page_says_so_and_shows_the_rest(
    client_of: Callable[[str], Client], settings: Any
) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = f"http://spendwatch:x@127.0.0.1:{free_ports(1)[0]}/spendwatch"
    page = start(client_of("viewer"))
    assert "ClickHouse does not answer" in page.text["clickhouse-problem"]
    assert page.text["open-incidents"] == "0"
    assert "spend-today" not in page.text


def test_somebody_without_a_role_sees_no_figure(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending(call(1))
    page = start(client_of("nobody"))
    assert "spend-today" not in page.text
    assert "unreconciled" not in page.text


def test_spend_at_openrouter_that_no_statement_was_compared_with_is_named(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending(call(1, cost="0.7", provider_name="openrouter"), call(2, cost="0.1"))
    page = start(client_of("finance"))
    assert page.usd.get("unmatched", "0.7") == "0.7"
    assert page.usd["spend-month"] in ("0.8", "0")


def test_the_chart_shows_hours_first_and_days_when_asked(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending(call(1, cost="0.7"), call(2, cost="0.3", ago=timedelta(hours=3)))
    client = client_of("viewer")
    hours, days = (client.get(f"/admin/{query}").context["spending"] for query in ("", "?chart=days"))
    assert (hours.chart_step, days.chart_step) == ("hours", "days")
    assert '"0.7"' in hours.chart
    assert '"1"' in days.chart or '"0.7"' in days.chart  # midnight may lie between the two


def test_the_pages_are_confined_by_their_policy(client_of: Callable[[str], Client]) -> None:
    inside = client_of("viewer").get("/admin/password_change/").headers["Content-Security-Policy"]
    outside = Client().get("/").headers["Content-Security-Policy"]
    assert "'unsafe-eval'" in inside
    assert "unsafe" not in outside
    for policy in (inside, outside):
        assert "default-src 'none'" in policy
        assert "http" not in policy


def test_a_basis_is_explained_for_each_kind() -> None:
    from server.pages.detail import BASIS

    assert set(BASIS) == set(CostBasis)
