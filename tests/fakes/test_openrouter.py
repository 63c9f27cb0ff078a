"""The scripted OpenRouter tells one story over all its endpoints, to the real SDKs too."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.fakes.openrouter import OpenRouter, key_hash

KEY = "sk-or-v1-search"
MODEL = "openai/gpt-4.1-mini"
TOKENS = {"prompt": 10240, "completion": 310, "cached": 8192, "reasoning": 64}
COST = Decimal("0.0021344")


def client(openrouter: OpenRouter) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=openrouter.base_url, max_retries=0)


def managed(openrouter: OpenRouter, path: str, **query: str) -> Any:
    answer = httpx2.get(
        openrouter.base_url + path, params=query, headers={"Authorization": f"Bearer {openrouter.management_key}"}
    )
    answer.raise_for_status()
    return json.loads(answer.text, parse_float=Decimal)


def ask(openrouter: OpenRouter, *, at: datetime | None = None, model: str = MODEL, **script: object) -> dict[str, Any]:
    answer = httpx2.post(
        f"{openrouter.base_url}/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "hi"}], "script": script},
        headers={"Authorization": f"Bearer {KEY}", **({"X-Demo-Time": at.isoformat()} if at else {})},
    )
    answer.raise_for_status()
    return json.loads(answer.text, parse_float=Decimal)  # type: ignore[no-any-return]


def yesterday() -> datetime:
    return datetime.now(UTC).replace(hour=12) - timedelta(days=1)


def test_a_plain_reply_reports_exact_cost_and_tokens(openrouter: OpenRouter) -> None:
    usage = ask(openrouter, tokens=TOKENS)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["cost"]) == (10240, 310, COST)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 8192
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 64
    assert usage["cost_details"]["upstream_inference_cost"] == COST


def test_the_openai_sdk_reads_a_stream_with_tool_calls_and_usage_in_the_last_chunk(openrouter: OpenRouter) -> None:
    script = {"reply": "Let me look.", "tokens": TOKENS, "tool_calls": [{"name": "search", "arguments": {"q": "x"}}]}
    stream = client(openrouter).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        metadata={"script": json.dumps(script)},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Let me look."
    arguments = "".join(
        part.function.arguments or ""
        for c in chunks
        if c.choices
        for part in c.choices[0].delta.tool_calls or []
        if part.function
    )
    assert json.loads(arguments) == {"q": "x"}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 10240


def test_the_anthropic_sdk_reads_a_stream_with_cache_writes(openrouter: OpenRouter) -> None:
    anthropic_client = anthropic.Anthropic(api_key="sk-ant-x", base_url=openrouter.direct_url, max_retries=0)
    tokens = {"prompt": 5200, "completion": 90, "cached": 4000, "cache_write": 600, "cache_write_1h": 200}
    with anthropic_client.messages.stream(
        model="claude-sonnet-5",
        max_tokens=100,
        messages=[{"role": "user", "content": "hi"}],
        extra_body={"script": {"reply": "Hello you", "tokens": tokens}},
    ) as stream:
        message = stream.get_final_message()
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello you"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (600, 4000, 600)
    assert usage.cache_creation is not None
    assert usage.cache_creation.ephemeral_1h_input_tokens == 200
    assert usage.output_tokens == 90


def test_activity_credits_and_keys_agree_with_the_calls_served(openrouter: OpenRouter) -> None:
    for _ in range(3):
        ask(openrouter, at=yesterday(), tokens=TOKENS)
    ask(openrouter, at=yesterday(), tokens=TOKENS, provider="Azure", byok=True)
    ask(openrouter, tokens=TOKENS)
    rows = managed(openrouter, "/activity")["data"]
    assert [(row["provider_name"], row["requests"], row["usage"], row["byok_usage_inference"]) for row in rows] == [
        ("OpenAI", 3, 3 * COST, 0),
        ("Azure", 1, COST / 20, COST),
    ]
    assert managed(openrouter, "/credits")["data"]["total_usage"] == 4 * COST + COST / 20
    assert managed(openrouter, "/keys")["data"][0]["usage"] == 4 * COST + COST / 20
    assert managed(openrouter, "/activity", api_key_hash=key_hash("sk-or-v1-other"))["data"] == []


def test_a_generation_is_found_the_second_time_it_is_asked_for(openrouter: OpenRouter) -> None:
    id_ = ask(openrouter, tokens=TOKENS)["id"]
    with pytest.raises(httpx2.HTTPStatusError, match="404"):
        managed(openrouter, "/generation", id=id_)
    assert managed(openrouter, "/generation", id=id_)["data"]["usage"] == COST


def test_an_inference_key_may_not_read_the_activity_nor_a_management_key_infer(openrouter: OpenRouter) -> None:
    refused = httpx2.get(f"{openrouter.base_url}/activity", headers={"Authorization": f"Bearer {KEY}"})
    assert refused.status_code == 403
    with pytest.raises(openai.PermissionDeniedError):
        client(openrouter).with_options(api_key=openrouter.management_key).chat.completions.create(
            model=MODEL, messages=[]
        )


@pytest.mark.parametrize(("status", "error"), [(402, openai.APIStatusError), (429, openai.RateLimitError)])
def test_scripted_errors_reach_the_client_and_are_not_billed(
    openrouter: OpenRouter, status: int, error: type[openai.APIStatusError]
) -> None:
    openrouter.post("/_script", {"model": MODEL, "script": {"error": {"status": status, "retry_after_s": 7}}})
    with pytest.raises(error) as caught:
        client(openrouter).chat.completions.create(model=MODEL, messages=[])
    assert caught.value.response.headers["retry-after"] == "7"
    assert not openrouter.world.generations


def test_a_client_that_leaves_is_billed_in_full_and_marked_cancelled(openrouter: OpenRouter) -> None:
    script = {"reply": "word " * 200, "chunks": 200, "chunk_delay_s": 0.02, "tokens": TOKENS}
    stream = client(openrouter).chat.completions.create(
        model=MODEL, messages=[], stream=True, metadata={"script": json.dumps(script)}
    )
    next(iter(stream))
    stream.close()
    (generation,) = openrouter.world.generations.values()

    async def cancelled() -> None:
        while not generation.cancelled:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(cancelled(), 10))
    assert generation.billed is not None
    assert generation.billed.usage == COST


def test_an_error_in_the_middle_of_a_stream_reaches_the_client(openrouter: OpenRouter) -> None:
    script = {"reply": "abcdef", "chunks": 6, "error": {"status": 502, "message": "gone", "after_chunks": 4}}
    stream = client(openrouter).chat.completions.create(
        model=MODEL, messages=[], stream=True, metadata={"script": json.dumps(script)}
    )
    with pytest.raises(openai.APIError, match="gone"):
        list(stream)
    (generation,) = openrouter.world.generations.values()
    assert generation.finish_reason == "error"


def test_messages_through_openrouter_report_their_cost_at_the_end_of_the_stream(openrouter: OpenRouter) -> None:
    anthropic_client = anthropic.Anthropic(
        auth_token=KEY, base_url=openrouter.base_url.removesuffix("/v1"), max_retries=0
    )
    tokens = {"prompt": 5200, "completion": 900, "cached": 4000, "cache_write": 600}
    with anthropic_client.messages.create(
        model="anthropic/claude-sonnet-4.5",
        max_tokens=100,
        messages=[{"role": "user", "content": "hi"}],
        extra_body={"script": {"tokens": tokens}},
        stream=True,
    ) as stream:
        (delta,) = [event for event in stream if event.type == "message_delta"]
    (generation,) = openrouter.world.generations.values()
    assert generation.said.usage == Decimal("0.01875")
    assert delta.usage.model_extra is not None
    assert delta.usage.model_extra["cost"] == 0.01875


def test_a_stream_cut_in_the_middle_ends_without_done(openrouter: OpenRouter) -> None:
    script = {"reply": "abcdef", "chunks": 6, "cut_after": 3}
    stream = client(openrouter).chat.completions.create(
        model=MODEL, messages=[], stream=True, metadata={"script": json.dumps(script)}
    )
    with pytest.raises(openai.APIConnectionError):
        list(stream)
    assert len(openrouter.world.generations) == 1


@pytest.mark.parametrize(
    ("wish", "amount"),
    [
        ({"kind": "unobserved", "at": "DAY", "tokens": {"prompt": 1000, "completion": 0}}, Decimal("0.0004")),
        ({"kind": "unbilled"}, -COST),
        ({"kind": "price", "factor": "1.5"}, COST / 2),
        ({"kind": "tokens", "extra_completion": 1000}, Decimal("0.0016")),
        ({"kind": "byok"}, COST / 20),
        # Two calls cost 0.0042688 USD; rounded to five places 0.00427.
        ({"kind": "rounding", "places": 5}, Decimal("0.0000012")),
    ],
)
def test_each_planted_difference_moves_the_statement_by_its_amount(
    openrouter: OpenRouter, wish: dict[str, Any], amount: Decimal
) -> None:
    for _ in range(2):
        ask(openrouter, at=yesterday(), tokens=TOKENS)

    def billed() -> Decimal:
        rows = managed(openrouter, "/activity")["data"]
        return sum((row["usage"] + row["byok_usage_inference"] for row in rows), Decimal(0))

    before = billed()
    wish = {name: yesterday().isoformat() if value == "DAY" else value for name, value in wish.items()}
    planted = openrouter.post("/_plant", wish)
    assert Decimal(planted["amount"]) == amount
    assert billed() - before == amount


def test_a_world_with_a_journal_remembers(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.fakes.openrouter import World

    journal = tmp_path_factory.mktemp("world") / "journal"
    with OpenRouter(World(journal=journal)) as first:
        id_ = ask(first, tokens=TOKENS)["id"]
    assert World(journal=journal).generations[id_] == first.world.generations[id_]
