"""One call, seen by everybody who can see it: our SDK, a gateway, OpenRouter's Broadcast, its log of generations."""

import csv
import io
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from spendwatch.calls import CostBasis, LLMCall, Tags, TokenUsage
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.rollup import roll
from tests.collectors.otlp import otlp
from tests.collectors.otlp.conftest import Collector, partial_success

AT = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
ID = "gen-1763769600-Ab3"

SDK = LLMCall(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    started_at=AT,
    duration_us=2_500_000,
    provider_name="openrouter",
    request_model="openai/gpt-4.1-mini",
    response_model="openai/gpt-4.1-mini",
    response_id=ID,
    server_address="openrouter.ai",
    usage=TokenUsage(input_tokens=10240, output_tokens=310),
    streamed=True,
    finish_reasons=("stop",),
    service_name="checkout",
    tags=Tags(team="search"),
    cost_basis=CostBasis.UNPRICED,
)
GATEWAY = {
    "gen_ai.operation.name": "acompletion",
    "gen_ai.system": "openrouter",
    "gen_ai.request.model": "openai/gpt-4.1-mini",
    "gen_ai.response.id": ID,
    "gen_ai.usage.input_tokens": 10240,
    "gen_ai.usage.output_tokens": 310,
    "gen_ai.cost.total_cost": 0.0099,
    "metadata.user_api_key_team_alias": "gateway-team",
    "metadata.usage_object": "{'prompt_tokens': 10240, 'prompt_tokens_details': {'cached_tokens': 8192}}",
    "metadata.user_api_key_user_id": "u-gateway",
}
BROADCAST = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "openai/gpt-4.1-mini",
    "gen_ai.response.id": ID,
    "gen_ai.usage.input_tokens": 10240,
    "gen_ai.usage.output_tokens": 310,
    "gen_ai.usage.output_tokens.reasoning": 100,
    "trace.metadata.openrouter_generation.usage": 0.0021344,
    "trace.metadata.openrouter.provider_name": "Azure",
    "trace.metadata.openrouter.api_key_name": "prod-chat",
    "user.id": "u-broadcast",
}
CSV = {
    "generation_id": ID,
    "created_at": (AT + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S.250"),
    "cost_total": "0.0021344",
    "tokens_prompt": "10011",
    "tokens_completion": "305",
    "model_permaslug": "openai/gpt-4.1-mini-2025-04-14",
    "provider_name": "Azure",
    "app_name": "Shop",
    "time_to_first_token_ms": "250",
}


class Observers:
    """Each sends what it saw."""

    def __init__(self, collector: Collector, folder: Path) -> None:
        self._collector = collector
        self._file = folder / "openrouter_activity.csv"

    def sdk(self) -> None:
        assert partial_success(self._collector.send([SDK])) == (0, "")

    def gateway(self) -> None:
        self._send(GATEWAY, "litellm", AT + timedelta(milliseconds=300))

    def broadcast(self) -> None:
        self._send(BROADCAST, "openrouter", AT + timedelta(milliseconds=700))

    def csv(self) -> None:
        with self._file.open("w") as file:
            writer = csv.DictWriter(file, list(CSV))
            writer.writeheader()
            writer.writerow(CSV)
        call_command(
            "import_calls", str(self._file), project="shop", mapping="openrouter", again=True, stdout=io.StringIO()
        )

    def _send(self, attributes: dict[str, Any], scope: str, at: datetime) -> None:
        span = otlp.span(attributes=attributes, at=at)
        body = otlp.request([span], scope=scope, resource={"service.name": scope}).SerializeToString()
        assert partial_success(self._collector.post(body)) == (0, "")


WHOLE = (
    "sdk", "openrouter", "Azure", ID, "openai/gpt-4.1-mini", 10240, 8192, 310, 100, Decimal("0.0021344"), "reported",
    "search", "u-broadcast", "checkout", True, None, "0af7651916cd43dd8448eb211c80319c", "prod-chat", "Shop",
)  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations(("sdk", "gateway", "broadcast", "csv"))), ids="-".join)
def test_all_of_them_make_one_row_in_whatever_order_they_come(
    order: tuple[str, ...], collector: Collector, clickhouse: Connection, tmp_path: Path
) -> None:
    observers = Observers(collector, tmp_path)
    for name in (*order, order[0]):
        getattr(observers, name)()
    assert clickhouse.query(
        "row",
        "SELECT source, provider_name, serving_provider, response_id, request_model, input_tokens, "
        "cache_read_input_tokens, output_tokens, reasoning_output_tokens, effective_cost, cost_basis, team, user_id, "
        "service_name, streamed, time_to_first_chunk_us, lower(hex(trace_id)), attributes['key_name'], "
        "attributes['app_name'] FROM llm_calls FINAL",
    ) == [WHOLE]
    roll(clickhouse)
    sums = clickhouse.query("sums", "SELECT sum(calls), sum(effective_cost), sum(input_tokens) FROM llm_calls_hourly")
    assert sums == [(1, Decimal("0.0021344"), 10240)]
