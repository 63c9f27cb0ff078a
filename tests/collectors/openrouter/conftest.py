"""An account at the scripted OpenRouter, and calls made with one of its keys."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from collectors.models import OpenRouterAccount
from tests.fakes.openrouter import OpenRouter

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def account(openrouter: OpenRouter, db: None) -> OpenRouterAccount:
    """The account whose management key is right."""
    return OpenRouterAccount.objects.create(
        name="main", base_url=openrouter.base_url, management_key=openrouter.management_key
    )


@pytest.fixture
def ask(openrouter: OpenRouter) -> Ask:
    """ask(key=…, model=…, at=…, **script): one call, its reply."""

    def ask(
        *, key: str = "sk-or-v1-search", model: str = "openai/gpt-4.1-mini", at: datetime | None = None, **script: Any
    ) -> dict[str, Any]:
        answer = httpx2.post(
            f"{openrouter.base_url}/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": "hi"}], "script": script},
            headers={"Authorization": f"Bearer {key}", "X-Demo-Time": (at or yesterday()).isoformat()},
        )
        answer.raise_for_status()
        return json.loads(answer.text, parse_float=Decimal)  # type: ignore[no-any-return]

    return ask


def yesterday() -> datetime:
    """Noon of the last completed UTC day."""
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
