"""A Slack on loopback, channels that lead to it, and a clock that is set by hand."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from alerts.models import Channel, ChannelKind
from tests.fakes.slack import FakeSlack

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack() as fake:
        yield fake


@pytest.fixture
def bot(db: None, slack: FakeSlack) -> Channel:
    return Channel.objects.create(
        name="ops", kind=ChannelKind.SLACK_BOT, secret="xoxb-1", slack_channel="C0OPS", base_url=slack.api_url
    )


@pytest.fixture
def webhook(db: None, slack: FakeSlack) -> Channel:
    return Channel.objects.create(
        name="hook", kind=ChannelKind.SLACK_WEBHOOK, secret=slack.webhook_url("C0HOOK"), base_url=slack.api_url
    )


@pytest.fixture
def texts(slack: FakeSlack) -> Callable[[], list[str]]:
    """The first text of every message Slack has, in order."""
    return lambda: [message.versions[0] for message in slack.messages]
