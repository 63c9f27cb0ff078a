"""What an administrator of Larkfield's would have typed in, as rows of the same tables."""

from decimal import Decimal
from typing import Any

from django.apps import apps

from server.demo.world import MANAGEMENT_KEY, SLACK_CHANNEL, World

EXPORT_BUDGET = "Nightly export"
EXPORT_LIMIT = Decimal(1)
THRESHOLDS = [50, 100]


def _model(label: str) -> Any:
    """A model by its label: the server names the apps, it imports none of them."""
    return apps.get_model(label)


def token() -> str:
    """A project of Larkfield's, and the token that its app sends with."""
    project = _model("spendwatch_collectors.Project").objects.create(slug="larkfield", name="Larkfield Books")
    _, secret = _model("spendwatch_collectors.IngestToken").issue(project, "the shop's servers")
    return str(secret)


def accounts(world: World) -> None:
    """The OpenRouter account to collect from, the Slack channel to tell, and one budget."""
    _model("spendwatch_collectors.OpenRouterAccount").objects.create(
        name="larkfield", base_url=world.openrouter_url, management_key=MANAGEMENT_KEY
    )
    channel = _model("spendwatch_alerts.Channel").objects.create(
        name="#llm-spend",
        kind="slack_bot",
        secret="xoxb-larkfield",  # noqa: S106  # the Slack on loopback takes any token
        slack_channel=SLACK_CHANNEL,
        base_url=f"{world.slack_url}/api/",
    )
    budget = _model("spendwatch_alerts.Budget")(
        name=EXPORT_BUDGET,
        scope={"agent": ["exporter"]},
        amount=EXPORT_LIMIT,
        period="rolling",
        hours=24,
        thresholds=THRESHOLDS,
        channel=channel,
    )
    budget.full_clean()
    budget.save()
