"""Which exchanges are LLM calls, by host, path and body alone."""

import json
from typing import Any

import pytest

from spendwatch.wire import Request, recognise

JSON = {"content-type": "application/json"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MESSAGES = {**CHAT, "max_tokens": 5}


def asked(
    host: str, path: str, body: Any = None, *, port: int | None = None, method: str = "POST", **headers: str
) -> Request:
    given = json.dumps(CHAT if body is None else body).encode()
    return Request(method, host, port, path, {**JSON, **{k.replace("_", "-"): v for k, v in headers.items()}}, given)


@pytest.mark.parametrize(
    ("request_", "name", "provider"),
    [
        (asked("api.openai.com", "/v1/chat/completions"), "openai_chat", "openai"),
        (asked("openrouter.ai", "/api/v1/chat/completions"), "openai_chat", "openrouter"),
        (asked("x.openai.azure.com", "/openai/deployments/d/chat/completions?v=1"), "openai_chat", "azure.ai.openai"),
        (asked("api.groq.com", "/openai/v1/chat/completions"), "openai_chat", "groq"),
        (asked("api.openai.com", "/v1/responses"), "openai_responses", "openai"),
        (asked("api.anthropic.com", "/v1/messages?beta=true", MESSAGES), "anthropic_messages", "anthropic"),
        (asked("openrouter.ai", "/api/v1/messages", MESSAGES), "anthropic_messages", "openrouter"),
        (asked("eu-aiplatform.googleapis.com", "/v1/projects/p/publishers/anthropic/models/c@1:streamRawPredict"),
         "anthropic_messages", "gcp.vertex_ai"),
        (asked("llm.corp.example", "/proxy/v1/chat/completions"), "openai_chat", None),
        (asked("llm.corp.example", "/anthropic/v1/messages", MESSAGES), "anthropic_messages", None),
        (asked("llm.corp.example", "/v1/messages", {}, anthropic_version="2023-06-01"), "anthropic_messages", None),
        (asked("api.writer.com", "/v1/chat"), "openai_chat", "writer"),
    ],
)  # fmt: skip
def test_a_call_is_known_by_its_host_path_and_shape(request_: Request, name: str, provider: str | None) -> None:
    wire = recognise(request_, {})
    assert wire is not None
    assert (wire.name, wire.provider) == (name, provider)


@pytest.mark.parametrize(
    "request_",
    [
        asked("example.com", "/api/users"),
        asked("example.com", "/"),
        asked("example.com", ""),
        asked("api.twilio.com", "/2010-04-01/Accounts/AC/messages", {"to": "1", "body": "2"}),
        asked("slack.example", "/api/messages", {"messages": ["x"]}),
        asked("shop.example", "/v1/completions", {"form": 1}),
        asked("shop.example", "/v1/embeddings", {"html": "x"}),
        asked("api.openai.com", "/v1/models", method="GET"),
        asked("api.openai.com", "/v1/responses/resp_1", method="GET"),
        asked("api.openai.com", "/v1/threads/t/messages", {"role": "user", "content": "x"}, method="GET"),
        asked("chat.example", "/v1/chat"),
    ],
)
def test_other_traffic_is_left_alone(request_: Request) -> None:
    assert recognise(request_, {}) is None


def test_a_host_may_be_named_for_a_provider_or_never_looked_at() -> None:
    hosts = {"127.0.0.1:4100": "openrouter", "internal.example": None}
    local = recognise(asked("127.0.0.1", "/api/v1/chat/completions", {}, port=4100), hosts)
    assert local is not None
    assert local.provider == "openrouter"
    other = recognise(asked("127.0.0.1", "/api/v1/chat/completions", port=4200), hosts)
    assert other is not None
    assert other.provider is None
    assert recognise(asked("internal.example", "/v1/chat/completions", port=443), hosts) is None


@pytest.mark.parametrize(
    ("headers", "body", "port", "provider"),
    [
        ({"x-generation-id": "gen-1"}, {}, None, "openrouter"),
        ({}, {"id": "gen-1763769600-Ab"}, None, "openrouter"),
        (
            {},
            {"id": "x", "provider": "Azure", "usage": {"prompt_tokens": 1, "cost": 0, "is_byok": False}},
            None,
            "openrouter",
        ),
        ({"x-litellm-model-id": "1"}, {}, None, "litellm"),
        ({}, {"system_fingerprint": "fp_ollama"}, None, "ollama"),
        ({}, {}, 11434, "ollama"),
        ({}, {"id": "chatcmpl-1"}, None, "llm.corp.example"),
    ],
)
def test_an_unknown_host_is_named_by_its_replys_own_signs(
    headers: dict[str, str], body: dict[str, Any], port: int | None, provider: str
) -> None:
    request = asked("llm.corp.example", "/v1/chat/completions", port=port)
    wire = recognise(request, {})
    assert wire is not None
    reader = wire.reader(request, None)
    reader.head(200, headers)
    reader.feed(json.dumps(body).encode())
    assert reader.finish(True).provider_name == provider


def test_a_body_that_can_not_be_seen_is_trusted_on_a_telling_path() -> None:
    unseen = Request("POST", "llm.corp.example", None, "/v1/chat/completions", JSON, None)
    wire = recognise(unseen, {})
    assert wire is not None
    reader = wire.reader(unseen, None)
    reader.head(200, JSON)
    reader.feed(b'{"id":"c","model":"m","usage":{"prompt_tokens":3,"completion_tokens":1}}')
    assert reader.finish(True).usage.input_tokens == 3
    assert recognise(Request("POST", "chat.example", None, "/messages", JSON, None), {}) is None
