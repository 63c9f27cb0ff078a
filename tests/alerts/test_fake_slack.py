"""The Slack that remembers: it refuses what Slack refuses, or the other tests would prove little."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from tests.fakes.slack import FakeSlack


@pytest.fixture
def client(slack: FakeSlack) -> WebClient:
    return WebClient("xoxb-1", base_url=slack.api_url, retry_handlers=[])


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


@pytest.mark.parametrize(
    "blocks",
    [
        [section("x")] * 51,
        [section("x" * 3001)],
        [section("")],
        [{"type": "section"}],
        [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}],
        [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]}],
        [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}],
        [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}],
        [{"type": "context", "elements": []}],
        [{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x" * 76}}]}],
        [{"type": "video"}],
    ],
)
def test_blocks_beyond_the_limits_are_refused(client: WebClient, slack: FakeSlack, blocks: list[Any]) -> None:
    with pytest.raises(SlackApiError, match="invalid_blocks"):
        client.chat_postMessage(channel="C0", text="x", blocks=blocks)
    assert slack.messages == []


def test_what_is_not_there_or_not_ours_can_not_be_updated(client: WebClient, slack: FakeSlack) -> None:
    with pytest.raises(SlackApiError, match="message_not_found"):
        client.chat_update(channel="C0", ts="1.000001", text="x")
    with pytest.raises(SlackApiError, match="invalid_auth"):
        WebClient("nonsense", base_url=slack.api_url).chat_postMessage(channel="C0", text="x")


def test_text_without_blocks_removes_the_blocks(client: WebClient, slack: FakeSlack) -> None:
    sent = client.chat_postMessage(channel="C0", text="x", blocks=[section("x")])
    client.chat_update(channel="C0", ts=str(sent["ts"]), text="y")
    assert (slack.messages[0].text, slack.messages[0].blocks) == ("y", [])


def test_timestamps_grow_and_threads_are_seen(client: WebClient, slack: FakeSlack) -> None:
    stamps = [str(client.chat_postMessage(channel="C0", text=f"m{n}")["ts"]) for n in range(5)]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == 5
    client.chat_postMessage(channel="C0", text="reply", thread_ts=stamps[0])
    assert [reply.text for reply in slack.replies(slack.roots()[0])] == ["reply"]
    history = client.conversations_history(channel="C0")
    assert [m["text"] for m in history["messages"]] == ["m4", "m3", "m2", "m1", "m0"]
    thread = client.conversations_replies(channel="C0", ts=stamps[0])
    assert [m["text"] for m in thread["messages"]] == ["m0", "reply"]


def test_it_runs_as_a_program_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.fakes.slack", "--port", "0"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            url = program.stdout.readline().strip()
            client = WebClient("xoxb-1", base_url=f"{url}/api/", retry_handlers=[])
            client.chat_postMessage(channel="C0", text="<b>hi</b>", blocks=[section("hi")])
            with urllib.request.urlopen(f"{url}/_messages") as answer:
                assert [m["text"] for m in json.load(answer)] == ["<b>hi</b>"]
            with urllib.request.urlopen(url) as answer:
                assert "&lt;b&gt;hi&lt;/b&gt;" in answer.read().decode()
        finally:
            program.kill()
