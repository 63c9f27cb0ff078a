"""What probes see, and what the doctor says."""

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from server import doctor, health
from server.doctor import Grade, examine
from spendwatch.calls import CallStatus, PricedCall, TokenUsage
from tests.server.processes import free_ports
from tests.server.some_calls import call


def test_the_process_answers_whatever_the_host_name(client: Client) -> None:
    reply = client.get("/healthz", headers={"host": "10.1.2.3:8000"})
    assert (reply.status_code, reply.content) == (200, b"ok\n")


def test_probes_are_not_sent_to_https(client: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 301


def test_readiness_names_the_part_that_is_missing(
    client: Client, db: None, spending: Callable[..., None], settings: Any
) -> None:
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    reply = client.get("/readyz")
    parts = reply.json()["parts"]
    assert reply.status_code == 503
    assert parts["broker"].startswith("the broker does not answer")
    assert {name for name, state in parts.items() if state == "ok"} == {"database", "migrations", "clickhouse"}


def test_readiness_says_when_clickhouse_is_away_and_shows_no_secret(client: Client, db: None, settings: Any) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = f"http://spendwatch:hunter2@127.0.0.1:{free_ports(1)[0]}/spendwatch"
    reply = client.get("/readyz")
    assert reply.status_code == 503
    assert "ClickHouse does not answer" in reply.json()["parts"]["clickhouse"]
    assert "hunter2" not in reply.content.decode()


@pytest.mark.needs("redis")
def test_everything_well_is_ready(client: Client, db: None, spending: Callable[..., None], settings: Any) -> None:
    from tests.fixtures.services import REDIS_URL

    settings.CELERY_BROKER_URL = REDIS_URL
    reply = client.get("/readyz")
    assert reply.json() == {"ready": True, "parts": dict.fromkeys(health.PARTS, "ok")}
    assert reply.status_code == 200


def findings() -> dict[str, doctor.Finding]:
    return {finding.part: finding for finding in examine()}


def test_the_doctor_names_unpriced_models(db: None, spending: Callable[..., None]) -> None:
    spending(call(1, cost=None, request_model="a-model-nobody-prices"), call(2))
    found = findings()
    assert found["ClickHouse"].grade is Grade.GOOD
    assert found["unpriced"].grade is Grade.WARNING
    assert "a-model-nobody-prices at openai (1 calls)" in found["unpriced"].text


def test_the_doctor_counts_streams_without_usage_and_says_what_to_do(db: None, spending: Callable[..., None]) -> None:
    def streams(first: int, count: int, wire_format: str, **facts: Any) -> list[PricedCall]:
        made = [call(first + n, cost=None, streamed=True, wire_format=wire_format, **facts) for n in range(count)]
        return [replace(one, call=replace(one.call, usage=TokenUsage(input_tokens=1))) for one in made]

    spending(
        *streams(1, 3, "openai_chat", request_model="gpt-x"),
        *streams(10, 2, "openai_chat", request_model="qwen", provider_name="10.0.0.7"),
        *streams(20, 1, "bedrock_converse", request_model="nova", provider_name="aws.bedrock"),
        # These are as they should be: left early, failed, told, not streamed, an embedding, long ago.
        *streams(30, 4, "openai_chat", status=CallStatus.ABORTED),
        *streams(40, 4, "openai_chat", status=CallStatus.ERROR),
        *(call(n, streamed=True, wire_format="openai_chat") for n in range(50, 54)),
        *(replace(one, call=replace(one.call, streamed=False)) for one in streams(60, 4, "openai_chat")),
        *streams(70, 4, "openai_embeddings", operation_name="embeddings"),
        *streams(80, 4, "openai_chat", ago=timedelta(days=8)),
    )
    asked, told = [found for found in examine() if found.part == "streams"]
    assert asked.grade is told.grade is Grade.WARNING
    assert (
        asked.text == "5 of the last 7 days' streams told no usage, the most: gpt-x at openai (3), qwen at 10.0.0.7 (2)"
    )
    assert "request_stream_usage=True" in asked.advice
    assert "hosts" in asked.advice
    assert told.text == "1 of the last 7 days' streams told no usage, the most: nova at aws.bedrock (1)"
    assert "request_stream_usage" not in told.advice


def test_the_doctor_says_nothing_of_streams_that_all_told_their_usage(db: None, spending: Callable[..., None]) -> None:
    spending(*(call(n, streamed=True, wire_format="openai_chat") for n in range(3)))
    assert "streams" not in findings()


def test_the_doctor_says_what_to_do_about_each_fault(db: None, settings: Any) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = f"http://spendwatch:hunter2@127.0.0.1:{free_ports(1)[0]}/spendwatch"
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    found = findings()
    for part in ("ClickHouse", "broker", "tokens", "people"):
        assert found[part].grade is Grade.BAD, part
    assert all(finding.advice for finding in found.values() if finding.grade is not Grade.GOOD)
    assert "hunter2" not in str(found)


def test_the_doctor_ends_with_an_error_when_something_is_wrong(db: None, settings: Any) -> None:
    settings.SPENDWATCH_CLICKHOUSE_DSN = f"http://spendwatch:x@127.0.0.1:{free_ports(1)[0]}/spendwatch"
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", stdout=out)
    assert ended.value.code == 1
    assert "wrong  ClickHouse" in out.getvalue()
