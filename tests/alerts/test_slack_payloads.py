"""What a message looks like in Slack: golden payloads, limits, escaping."""

from datetime import UTC, datetime
from typing import Any

import pytest

from alerts.channels.alert import Alert, describe, usd
from alerts.channels.slack import render
from tests.fakes.slack import check_message

BUDGET = {
    "budget": "search", "amount": "500", "spent": "412.1", "percent": "82.4", "threshold": 80, "scope": "team: search",
    "period": "this month", "unpriced_calls": 3, "as_of": "2026-11-20T12:00:00+00:00",
}  # fmt: skip
LOOP = {
    "agent": "crawler", "service": "shop", "model": "openai/gpt-5_mini*", "rule": "repeated_action", "tool": "search",
    "period": 1, "repeats": 6, "sessions": 1, "session": "s1", "calls": 7, "unpriced": 0, "cost": "0.42",
    "usd_an_hour": "25.2", "first_at": "2026-11-20T12:00:00+00:00", "last_at": "2026-11-20T12:01:00+00:00",
}  # fmt: skip
URL = "http://127.0.0.1:8000/admin/spendwatch_alerts/incident/7/change/"


def alert(kind: str, what: str, facts: dict[str, Any], state: str = "open") -> Alert:
    return describe(kind, what, state, "title", facts, url=URL, incident="7", key="k")


def test_a_budget_message() -> None:
    assert render(alert("budget", "threshold:80@500", BUDGET)) == {
        "text": "Budget search passed 80 %: 412.10 USD of 500.00 USD (82.4 %) this month.",
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": "Budget search passed 80 %", "emoji": False},
            },
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": "Budget search passed 80 %: 412.10 USD of 500.00 USD (82.4 %) this month.",
                },
            },
            {
                "type": "section",
                "fields": [
                    {"type": "mrkdwn", "text": "*Spent*\n412.10 USD (82.4 %)"},
                    {"type": "mrkdwn", "text": "*Budget*\n500.00 USD this month"},
                    {"type": "mrkdwn", "text": "*Scope*\n`team: search`"},
                ],
            },
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": "Calls without a price, not in this figure: 3"},
                    {
                        "type": "mrkdwn",
                        "text": "Spend as of <!date^1795176000^{date_short_pretty} {time}|2026-11-20 12:00 UTC>",
                    },
                ],
            },
            {
                "type": "actions",
                "elements": [
                    {
                        "type": "button",
                        "action_id": "sw:open",
                        "text": {"type": "plain_text", "text": "Open"},
                        "url": URL,
                    }
                ],
            },
        ],
        "unfurl_links": False,
        "metadata": {"event_type": "spendwatch_incident", "event_payload": {"id": "7", "delivery": "k"}},
    }


def test_a_loop_message_says_who_repeats_what_and_what_it_costs() -> None:
    payload = render(alert("loop", "opened:1", LOOP))
    assert payload["text"] == "Runaway loop: crawler: search with the same result, 6 times; 0.4200 USD so far."
    assert [field["text"] for field in payload["blocks"][2]["fields"]] == [
        "*Agent*\n`crawler`",
        "*Repeats*\n6 times: search with the same result",
        "*Dollars so far*\n0.4200 USD",
        "*Dollars an hour*\n25.20 USD",
        "*Calls*\n7",
        "*Service*\n`shop`",
        "*Model*\n`openai/gpt-5_mini*`",
        "*Session*\n`s1`",
    ]


@pytest.mark.parametrize(
    ("what", "state", "facts", "text"),
    [
        ("resolved:1", "resolved", {}, "The loop of crawler has stopped after 7 calls and 0.4200 USD."),
        ("opened:2", "open", {}, "Back again: Runaway loop: crawler: search with the same result, 6 times; 0.4200"),
        ("now", "resolved by ada", {}, "Resolved: Runaway loop: crawler: search with the same result, 6 times;"),
        (
            "opened:1",
            "open",
            {"rule": "canned_message", "tool": ""},
            "crawler: the same message without a tool call, 6",
        ),
        ("opened:1", "open", {"period": 2}, "crawler: a cycle of 2 actions (search), 6 times"),
        ("opened:1", "open", {"tool": ""}, "crawler: the same action with the same result, 6 times"),
        ("opened:1", "open", {"agent": "", "service": ""}, "Runaway loop: unnamed agent: search"),
    ],
)
def test_loop_messages_by_occasion(what: str, state: str, facts: dict[str, Any], text: str) -> None:
    assert text in render(alert("loop", what, {**LOOP, **facts}, state))["text"]


def test_an_updated_message_shows_the_state() -> None:
    payload = render(alert("budget", "now", BUDGET, "acknowledged by ada"))
    assert {"type": "mrkdwn", "text": "State: acknowledged by ada"} in payload["blocks"][3]["elements"]


def test_names_can_be_no_markup() -> None:
    facts = {**BUDGET, "budget": "<!channel> & <script>", "scope": "agent: `a_*~b`<@U1>"}
    payload = render(alert("budget", "threshold:80@500", facts))
    shown = payload["blocks"][1]["text"]["text"]
    assert shown.startswith("Budget &lt;!channel&gt; &amp; &lt;script&gt; passed")
    # A header is plain text: Slack shows it as it is.
    assert payload["blocks"][0]["text"]["text"] == "Budget <!channel> & <script> passed 80 %"
    assert payload["blocks"][2]["fields"][2]["text"] == "*Scope*\n`agent: 'a_*~b'&lt;@U1&gt;`"


@pytest.mark.parametrize("filler", ["x", "&", "<b>"])
def test_payloads_keep_every_limit_of_slack(filler: str) -> None:
    long = filler * 5000
    many = Alert(
        headline=long, text=long, facts=tuple((f"f{n}", long) for n in range(40)), notes=(long,) * 30,
        times=(("t", datetime(2026, 11, 20, tzinfo=UTC)),), url="http://x/" + "u" * 4000, incident="7", key="k",
        code=frozenset({"f1"}),
    )  # fmt: skip
    payload = render(many)
    check_message(payload)
    assert "&am…" not in str(payload)
    assert "&l…" not in str(payload)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("1234.5", "1,234.50 USD"), ("0.4215", "0.4215 USD"), ("0", "0.00 USD"), (None, "unknown")],
)
def test_dollars_are_shown_as_people_read_them(amount: str | None, shown: str) -> None:
    assert usd(amount) == shown
