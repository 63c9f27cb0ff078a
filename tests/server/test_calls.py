"""The list of calls, one call, and the export."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from server.pages import calls as pages
from server.pages.export import every_call
from server.pages.filters import CallFilter
from spendwatch.calls import CallStatus, Window, call_id
from spendwatch.clickhouse.client import Connection
from tests.server.processes import free_ports
from tests.server.some_calls import call

CALLS = "/admin/spendwatch_server/call/"


def test_a_call_is_listed_with_its_facts(spending: Callable[..., None], client_of: Callable[[str], Client]) -> None:
    spending(call(1, cost="0.0123456", tags={"agent": "crawler", "team": "search"}))
    text = client_of("viewer").get(CALLS).content.decode()
    for fact in ('data-response-id="resp-1"', "crawler", "search", "gpt-5.2", "1,000", "$0.012346", "listed", "1.23 s"):
        assert fact in text


def test_an_unpriced_call_shows_no_cost(spending: Callable[..., None], client_of: Callable[[str], Client]) -> None:
    spending(call(1, cost=None))
    text = client_of("viewer").get(CALLS).content.decode()
    assert 'title="not known">—' in text
    assert "unpriced" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"team": "search"}, {"resp-1"}),
        ({"agent": "writer"}, {"resp-2"}),
        ({"model": "claude-sonnet-5"}, {"resp-3"}),
        ({"provider": "anthropic"}, {"resp-3"}),
        ({"status": "error"}, {"resp-4"}),
        ({"basis": "unpriced"}, {"resp-4"}),
        ({"session": "s-9"}, {"resp-2"}),
        ({"key": "ab" * 32}, {"resp-1"}),
        ({"search": "resp-3"}, {"resp-3"}),
        ({"search": f"{2:032x}"}, {"resp-2"}),
        ({"range": "week"}, {"resp-1", "resp-2", "resp-3", "resp-4", "resp-5"}),
        ({"team": "search", "agent": "writer"}, set()),
        ({"range": "nonsense"}, set()),
    ],
)
def test_each_filter_narrows_the_list(
    spending: Callable[..., None], client_of: Callable[[str], Client], query: dict[str, str], found: set[str]
) -> None:
    spending(
        call(1, tags={"team": "search"}, key_hash="ab" * 32),
        call(2, tags={"agent": "writer", "session": "s-9"}),
        call(3, request_model="claude-sonnet-5", provider_name="anthropic"),
        call(4, cost=None, status=CallStatus.ERROR, http_status=429, error_type="rate_limit"),
        call(5, ago=timedelta(days=3)),
    )
    reply = client_of("viewer").get(CALLS, query)
    assert {one.call.response_id for one in reply.context["calls"]} == found
    assert reply.context["total"] == len(found)


def test_the_list_is_read_a_page_at_a_time(
    spending: Callable[..., None], client_of: Callable[[str], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_SIZE", 10)
    spending(*[call(number, ago=timedelta(seconds=number)) for number in range(1, 26)])
    client = client_of("viewer")
    numbers = []
    for page in (1, 2, 3):
        reply = client.get(CALLS, {"page": page})
        assert len(reply.context["calls"]) <= 10
        numbers += [one.call.response_id for one in reply.context["calls"]]
    assert numbers == [f"resp-{number}" for number in range(1, 26)]
    assert reply.context["next"] == ""
    assert client.get(CALLS, {"page": "x"}).context["page"] == 1


def test_one_call_shows_its_three_layers_and_ids(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    one = call(7, cost="0.5", tags={"session": "s-1"})
    spending(one)
    text = client_of("viewer").get(f"{CALLS}{call_id(one.call)}/").content.decode()
    layers = [
        text.split(f'data-testid="cost-{name}"')[1].split('data-usd="')[1].split('"')[0]
        for name in ("list", "routed", "effective")
    ]
    assert layers == ["1", "0.75", "0.5"]
    assert "by routing" in text
    assert "resp-7" in text
    assert f"{7:032x}" in text


def test_a_call_that_does_not_exist_is_not_found(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending()
    client = client_of("viewer")
    assert client.get(f"{CALLS}12345/").status_code == 404
    assert client.get(f"{CALLS}{2**70}/").status_code == 404


def test_the_export_holds_each_call_once_with_exact_amounts(
    spending: Callable[..., None], client_of: Callable[[str], Client]
) -> None:
    spending(call(1, cost="0.123456789012", tags={"agent": "=cmd()"}), call(2, cost=None))
    reply = client_of("finance").get(f"{CALLS}export.csv")
    assert reply.headers["Content-Type"].startswith("text/csv")
    rows = {row["response_id"]: row for row in csv.DictReader(io.StringIO(b"".join(reply).decode()))}
    assert rows["resp-1"]["effective_cost"] == "0.123456789012"
    assert rows["resp-1"]["agent"] == "'=cmd()"  # a spreadsheet would run it
    assert rows["resp-2"]["effective_cost"] == ""
    assert len(rows) == 2


def test_the_export_reads_in_pages_and_repeats_nothing(spending: Callable[..., None], clickhouse: Connection) -> None:
    made = [call(number, ago=timedelta(seconds=number)) for number in range(1, 30)]
    # Seven calls in one microsecond, more than a page holds.
    at = datetime.now(UTC) - timedelta(seconds=40)
    made += [replace(one, call=replace(one.call, started_at=at)) for one in (call(number) for number in range(30, 37))]
    spending(*made)
    window = Window(at - timedelta(hours=1), datetime.now(UTC))
    found = [one.call_id for one in every_call(clickhouse, CallFilter(window, {}, ""), page_size=5)]
    assert len(found) == len(set(found)) == 36
    assert set(found) == {call_id(one.call) for one in made}


def test_only_who_may_export_gets_the_file(spending: Callable[..., None], client_of: Callable[[str], Client]) -> None:
    spending(call(1))
    assert client_of("viewer").get(f"{CALLS}export.csv").status_code == 403
    assert client_of("nobody").get(CALLS).status_code == 403


def test_without_clickhouse_the_list_says_so(client_of: Callable[[str], Client], settings: Any) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = f"http://spendwatch:x@127.0.0.1:{free_ports(1)[0]}/spendwatch"
    client = client_of("finance")
    for address in (CALLS, f"{CALLS}5/"):
        reply = client.get(address)
        assert reply.status_code == 200
        assert "ClickHouse does not answer" in reply.content.decode()
    assert client.get(f"{CALLS}export.csv").status_code == 503
