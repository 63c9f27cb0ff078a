"""The admin in a real browser, served by the real service: what a person sees, and what the page must not do."""

import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from spendwatch.clickhouse.client import connect
from spendwatch.clickhouse.rows import insert
from tests.fixtures.services import CHROMIUM, CHROMIUM_ARGS
from tests.server.processes import free_ports, manage
from tests.server.some_calls import call

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]


class Watched:
    """A page, and everything it did that it should not."""

    def __init__(self, page: Page, base: str, password: str) -> None:
        self.page, self.base, self.password = page, base, password
        self.wrong: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("request", lambda request: self._see(request.url))

    def _see(self, url: str) -> None:
        if not url.startswith((f"{self.base}/", "data:")):
            self.wrong.append(f"a request to {url}")

    def log_in(self, password: str) -> None:
        self.page.goto(f"{self.base}/admin/login/")
        self.page.fill("input[name=username]", "admin")
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the admin's password of a service that holds two calls of today (one of them unpriced) and one
    of last year."""
    web, ingest, store = (str(port) for port in free_ports(3))
    data = tmp_path_factory.mktemp("browser") / "data"
    with manage(
        "up",
        SPENDWATCH_DATA_DIR=str(data),
        SPENDWATCH_WEB_PORT=web,
        SPENDWATCH_INGEST_PORT=ingest,
        SPENDWATCH_STORE_PORT=store,
    ) as program:
        password = program.wait_for(r"password  (\S+)")[1]
        program.wait_for("Spendwatch is ready")
        secret = (data / "secrets" / "store_password").read_text().strip()
        with connect(f"http://spendwatch:{secret}@127.0.0.1:{store}/spendwatch", caller="tests") as ch:
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            today = (datetime.now(UTC) - midnight) / 2
            made = [
                call(1, cost="12.345678901234", ago=today, tags={"team": "search", "agent": "crawler"}),
                call(2, cost=None, ago=today),
                call(3, cost="99", ago=timedelta(days=400)),
            ]
            insert(ch, made, received_at=datetime.now(UTC))
        yield f"http://127.0.0.1:{web}", password
        program.send(signal.SIGTERM)
        program.wait()


@pytest.fixture
def browser(service: tuple[str, str]) -> Iterator[Watched]:
    """A browser of its own at the service."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        try:
            yield Watched(chromium.new_page(), *service)
        finally:
            chromium.close()


def test_somebody_logs_in_and_reads_the_spend(browser: Watched) -> None:
    page = browser.page
    browser.log_in(browser.password)
    expect(page.get_by_test_id("spend-today")).to_have_text("$12.35")
    assert Decimal(page.locator("[data-testid=spend-today] .sw-usd").get_attribute("data-usd") or "") == Decimal(
        "12.345678901234"
    )
    expect(page.get_by_test_id("unpriced-month")).to_have_text("1")
    expect(page.get_by_test_id("open-incidents")).to_have_text("0")
    # The chart is drawn: its canvas is not empty.
    painted = page.get_by_test_id("spend-chart").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v !== 0)"
    )
    assert painted

    page.get_by_role("link", name="search").click()
    expect(page.get_by_test_id("total")).to_have_text("1")
    page.locator("[data-testid=call-table] tbody a").click()
    expect(page.get_by_test_id("cost-effective")).to_have_text("$12.345679")
    expect(page.locator("[data-fact='Response id']")).to_have_text("resp-1")

    for entry in ("Statements", "Variances", "Budgets", "Incidents", "Tokens", "Users", "Schedule"):
        page.locator("#nav-sidebar-apps a", has=page.get_by_text(entry, exact=True)).click()
        expect(page.locator("#changelist")).to_be_visible()
    assert browser.wrong == []


def test_a_new_token_is_shown_once(browser: Watched) -> None:
    page = browser.page
    browser.log_in(browser.password)
    page.goto(f"{browser.base}/admin/spendwatch_collectors/ingesttoken/add/")
    page.locator(".select2-selection").click()
    page.locator(".select2-results__option", has_text="Default").click()
    page.fill("input[name=label]", "the crawler")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("body")).to_contain_text(re.compile(r"SPENDWATCH_TOKEN: swt_\S{40}"))
    page.reload()
    expect(page.locator("#changelist")).to_contain_text("the crawler")
    assert "swt_" not in page.content()
    assert browser.wrong == []


def test_a_wrong_password_is_refused_and_many_lock_the_door(browser: Watched) -> None:
    page = browser.page
    browser.log_in("not the password")
    expect(page.locator("body")).to_contain_text("Please enter the correct username and password")
    for _ in range(8):
        browser.log_in("not the password")
    expect(page.locator("h1")).to_have_text("Too many tries")
    browser.log_in(browser.password)
    expect(page.locator("h1")).to_have_text("Too many tries")
    # The browser itself reports the refusal (429) on its console; nothing else may be there.
    assert [line for line in browser.wrong if not re.search("429", line)] == []
