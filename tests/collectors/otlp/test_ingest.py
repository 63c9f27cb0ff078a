"""The collector over real connections, in front of the real store."""

import gzip
import json
import re
import socket
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from collectors.models import IngestToken, Project
from collectors.otlp import protocol, tokens
from spendwatch.calls import CostBasis, LLMCall, Tags, TokenUsage
from spendwatch.clickhouse.client import Connection
from tests.collectors.otlp import otlp
from tests.collectors.otlp.conftest import Collector, partial_success, status_message
from tests.collectors.otlp.test_call import WHOLE

CALL = replace(WHOLE, started_at=datetime.now(UTC), trace_id="0a" * 16, span_id="0b" * 8, tags=Tags(team="search"))


def call(number: int) -> LLMCall:
    """One of many different calls."""
    return replace(CALL, response_id=f"gen-1763769600-{number}", span_id=f"{number + 1:016x}")


def ids(clickhouse: Connection) -> list[str]:
    return [row[0] for row in clickhouse.query("ids", "SELECT response_id FROM llm_calls FINAL ORDER BY response_id")]


def count(clickhouse: Connection) -> int:
    (row,) = clickhouse.query("count", "SELECT count() FROM llm_calls FINAL")
    return int(row[0])


def metric(collector: Collector, name: str) -> int:
    text = collector.http.get(collector.url + "/metrics").text
    found = re.search(rf"^spendwatch_ingest_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(float(found[1]))


def test_a_call_is_stored_before_it_is_acknowledged(collector: Collector, clickhouse: Connection) -> None:
    response = collector.send([CALL])
    assert partial_success(response) == (0, "")
    assert response.headers["content-type"] == "application/x-protobuf"
    assert clickhouse.query(
        "row",
        "SELECT response_id, request_model, team, project, service_name, input_tokens, reported_cost, effective_cost, "
        "cost_basis, source, started_at, duration_us FROM llm_calls FINAL",
    ) == [
        (
            "gen-1763769600-Ab3", "openai/gpt-4.1-mini", "search", "shop", "checkout", 10240, Decimal("0.0021344"),
            Decimal("0.0021344"), "reported", "sdk", CALL.started_at, 1_234_567,
        )
    ]  # fmt: skip


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda body: body,
    "identity": lambda body: body,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def test_every_encoding_is_taken(collector: Collector, clickhouse: Connection) -> None:
    ways = [
        (encoding, content_type)
        for encoding in ENCODERS
        for content_type in ("application/x-protobuf", "application/json", "application/JSON; charset=x")
    ]
    for number, (encoding, content_type) in enumerate(ways):
        message = otlp.request([otlp.own_span(call(number))], scope="spendwatch")
        body = message.SerializeToString() if "protobuf" in content_type else otlp.json_body(message)
        headers = {"content-encoding": encoding} if encoding else {}
        response = collector.post(ENCODERS[encoding](body), content_type=content_type, headers=headers)
        assert partial_success(response) == (0, ""), (encoding, content_type)
        assert response.headers["content-type"] == content_type.split(";")[0].lower()
    assert ids(clickhouse) == sorted(f"gen-1763769600-{number}" for number in range(len(ways)))


def test_sending_again_changes_nothing(collector: Collector, clickhouse: Connection) -> None:
    calls = [call(n) for n in range(20)]
    for _ in range(3):
        assert partial_success(collector.send(calls)) == (0, "")
    assert partial_success(collector.send(calls[:5])) == (0, "")
    assert count(clickhouse) == 20
    assert clickhouse.query("sum", "SELECT sum(effective_cost) FROM llm_calls FINAL") == [(Decimal("0.0021344") * 20,)]


def test_an_unknown_model_is_stored_as_unpriced(collector: Collector, clickhouse: Connection) -> None:
    bare = replace(
        CALL, provider_name="nobody", request_model="unheard-of", response_model=None, reported_cost=None,
        upstream_cost=None, listed_cost=None, cost_basis=CostBasis.UNPRICED, price_version=None,
        usage=TokenUsage(input_tokens=10, output_tokens=5),
    )  # fmt: skip
    assert partial_success(collector.send([bare])) == (0, "")
    found = clickhouse.query("row", "SELECT effective_cost, list_cost, cost_basis, input_tokens FROM llm_calls FINAL")
    assert found == [(None, None, "unpriced", 10)]
    assert metric(collector, "calls_unpriced_total") == 1


def test_a_known_model_is_priced_when_it_comes_in(collector: Collector, clickhouse: Connection) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 1_000_000,
        "gen_ai.usage.output_tokens": 0,
    }
    assert partial_success(collector.post(otlp.request([otlp.span(attributes=attributes)]).SerializeToString())) == (
        0,
        "",
    )
    ((cost, basis, source),) = clickhouse.query("row", "SELECT effective_cost, cost_basis, source FROM llm_calls FINAL")
    assert (cost, basis, source) == (Decimal("0.15"), "listed", "otlp:genai")


def test_spans_that_are_no_calls_are_accepted_and_ignored(collector: Collector, clickhouse: Connection) -> None:
    spans = [otlp.span("GET /", attributes={"http.request.method": "GET"}) for _ in range(3)]
    assert partial_success(collector.post(otlp.request(spans).SerializeToString())) == (0, "")
    assert count(clickhouse) == 0
    assert metric(collector, "spans_received_total") == 3
    assert metric(collector, "spans_ignored_total") == 3


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/json"])
def test_a_span_that_cannot_be_stored_is_named_and_the_others_are_stored(
    collector: Collector, clickhouse: Connection, content_type: str
) -> None:
    bad = [otlp.own_span(call(n)) for n in range(2)]
    bad[0].trace_id = b""
    bad[1].start_time_unix_nano = 1
    message = otlp.request([otlp.own_span(call(7)), *bad, bad[1]], scope="spendwatch")
    body = message.SerializeToString() if "protobuf" in content_type else otlp.json_body(message)
    rejected, reasons = partial_success(collector.post(body, content_type=content_type))
    assert rejected == 3
    assert "1 x a span without a trace id" in reasons
    assert "2 x a span that starts 1 ns after 1970" in reasons
    assert ids(clickhouse) == ["gen-1763769600-7"]
    assert metric(collector, "spans_rejected_total") == 3


def test_metrics_and_logs_are_accepted_and_dropped(collector: Collector, clickhouse: Connection) -> None:
    for path in ("/v1/metrics", "/v1/logs"):
        assert collector.post(b"\x0a\x00", path=path).status_code == 200
        response = collector.post(b"{}", path=path, content_type="application/json")
        assert (response.status_code, response.json()) == (200, {})
        assert collector.post(b"", path=path, token="swt_wrong").status_code == 401
    assert count(clickhouse) == 0


def test_health_is_told(collector: Collector) -> None:
    assert collector.http.get(collector.url + "/healthz").text == "ok\n"
    assert collector.http.get(collector.url + "/readyz").text == "ready\n"


def test_a_malformed_body_is_refused_with_the_reason(collector: Collector, clickhouse: Connection) -> None:
    for content_type in ("application/x-protobuf", "application/json"):
        for body in (b"not otlp", b"\x0a\x05hel", b'{"resourceSpans": 5}', b"\xff" * 100):
            response = collector.post(body, content_type=content_type)
            code, message = status_message(response)
            assert (response.status_code, code) == (400, 3), (content_type, body)
            assert response.headers["content-type"] == content_type
            assert message.startswith("expected an ExportTraceServiceRequest in")
            assert ", found" in message
    assert collector.send([CALL]).status_code == 200
    assert count(clickhouse) == 1


def test_a_body_that_is_not_what_its_encoding_says_is_refused(collector: Collector) -> None:
    for encoding in ("gzip", "deflate"):
        response = collector.post(otlp.own_request([CALL]), headers={"content-encoding": encoding})
        assert response.status_code == 400
        assert status_message(response)[1].startswith(f"expected content-encoding {encoding}, found broken data")


def test_an_unknown_type_or_encoding_is_refused(collector: Collector) -> None:
    for content_type in ("text/plain", "application/grpc", None):
        response = collector.post(b"", content_type=content_type)
        assert (response.status_code, response.headers["content-type"]) == (415, "application/json")
        assert "expected content-type application/x-protobuf" in response.json()["message"]
    response = collector.post(b"", headers={"content-encoding": "br"})
    assert response.status_code == 415
    assert "found 'br'" in status_message(response)[1]


def test_a_missing_or_unknown_token_is_refused(collector: Collector, clickhouse: Connection) -> None:
    body = otlp.json_body(otlp.request([otlp.own_span(CALL)], scope="spendwatch"))
    for sent in (None, "", "Bearer", "Bearer swt_wrong", "Bearer swt_" + "x" * 500, "Basic c3d0OnB3", "swt_"):
        headers = {"content-type": "application/json"} | ({} if sent is None else {"authorization": sent})
        response = collector.http.post(collector.url + "/v1/traces", content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, 16), sent
        assert "SPENDWATCH_TOKEN" in response.json()["message"]
        assert response.headers["www-authenticate"] == "Bearer"
    assert count(clickhouse) == 0


def test_a_revoked_token_is_refused_once_it_is_forgotten(make_collector: Callable[..., Collector]) -> None:
    collector = make_collector(remember_s=0)
    token, secret = IngestToken.issue(Project.objects.get(slug="shop"), "to be revoked")
    assert collector.post(otlp.own_request([CALL]), token=secret).status_code == 200
    token.revoke()
    response = collector.post(otlp.own_request([CALL]), token=secret)
    assert response.status_code == 401
    assert "revoked" in status_message(response)[1]


def test_a_token_is_looked_up_once_and_remembered_for_ten_seconds(make_collector: Callable[..., Collector]) -> None:
    collector = make_collector(remember_s=3600)
    token, secret = IngestToken.issue(Project.objects.get(slug="shop"), "to be revoked")
    assert collector.post(otlp.own_request([CALL]), token=secret).status_code == 200
    token.revoke()
    assert collector.post(otlp.own_request([CALL]), token=secret).status_code == 200
    assert tokens.REMEMBER_S == 10


def test_the_use_of_a_token_is_noted(collector: Collector) -> None:
    assert IngestToken.objects.get().last_used_at is None
    collector.send([CALL])
    assert IngestToken.objects.get().last_used_at is not None


def test_calls_belong_to_the_project_of_their_token(collector: Collector, clickhouse: Connection) -> None:
    _, secret = IngestToken.issue(Project.objects.create(slug="billing", name="Billing"), "app")
    collector.send([call(1)])
    collector.post(otlp.own_request([replace(call(2), tags=Tags(project="shop"))]), token=secret)
    found = clickhouse.query(
        "projects", "SELECT project, attributes['tagged_project'] FROM llm_calls FINAL ORDER BY response_id"
    )
    assert found == [("shop", ""), ("billing", "shop")]


def test_only_post_is_served_and_only_on_the_paths_of_otlp(collector: Collector) -> None:
    response = collector.http.get(collector.url + "/v1/traces")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert collector.post(b"", path="/v1/profiles").status_code == 404
    assert collector.http.get(collector.url + "/admin/").status_code == 404


def test_an_oversized_body_is_refused_however_it_is_announced(make_collector: Callable[..., Collector]) -> None:
    collector = make_collector(body=100_000)
    headers = {"authorization": f"Bearer {collector.token}", "content-type": "application/x-protobuf"}

    def chunks() -> object:
        for _ in range(20):
            yield bytes(10_000)

    announced = collector.http.post(collector.url + "/v1/traces", content=bytes(200_000), headers=headers)
    streamed = collector.http.post(collector.url + "/v1/traces", content=chunks(), headers=headers)
    for response in (announced, streamed):
        assert response.status_code == 413
        assert "expected a body of at most 100000 bytes" in status_message(response)[1]
    assert metric(collector, "held_bytes") == 0


def test_a_gzip_bomb_is_refused(collector: Collector, clickhouse: Connection) -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=1)
    response = collector.post(bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 413
    assert "after decompression" in status_message(response)[1]
    assert metric(collector, "held_bytes") == 0
    assert collector.send([CALL]).status_code == 200
    assert count(clickhouse) == 1


def test_too_many_spans_in_one_request_are_refused_whole(
    make_collector: Callable[..., Collector], clickhouse: Connection
) -> None:
    collector = make_collector(spans=10)
    response = collector.send([call(n) for n in range(20)])
    assert response.status_code == 413
    assert "at most 10 spans" in status_message(response)[1]
    assert count(clickhouse) == 0


def test_a_request_without_a_length_is_refused(collector: Collector) -> None:
    with socket.create_connection(collector.address, timeout=30) as raw:
        raw.sendall(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer " + collector.token.encode() + b"\r\n\r\n"
        )
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 411 ")


def test_a_body_that_does_not_come_is_given_up(make_collector: Callable[..., Collector]) -> None:
    collector = make_collector(read_s=0.2)
    with socket.create_connection(collector.address, timeout=30) as raw:
        raw.sendall(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n"
            b"authorization: Bearer " + collector.token.encode() + b"\r\n\r\nhalf"
        )
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in answer
    assert b"expected the whole body within 0.2 s" in answer


def test_a_head_that_never_ends_is_cut_off(collector: Collector) -> None:
    with socket.create_connection(collector.address, timeout=30) as raw:
        raw.sendall(b"POST /v1/traces HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT012  # closed at some point of the flood
            for _ in range(10_000):
                raw.sendall(b"x-filler: " + b"x" * 1000 + b"\r\n")
            if not raw.recv(1):
                raise ConnectionResetError


def test_a_sender_that_leaves_in_the_middle_leaves_nothing_behind(collector: Collector, clickhouse: Connection) -> None:
    body = otlp.own_request([CALL])
    with socket.create_connection(collector.address, timeout=30) as raw:
        raw.sendall(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
            b"content-length: %d\r\n" % (len(body)) + b"authorization: Bearer " + collector.token.encode() + b"\r\n\r\n"
            + body[:-1]
        )  # fmt: skip
    assert collector.send([call(1)]).status_code == 200
    assert ids(clickhouse) == ["gen-1763769600-1"]
    assert metric(collector, "held_bytes") == 0


def test_when_there_is_no_room_senders_are_told_to_come_back(make_collector: Callable[..., Collector]) -> None:
    collector = make_collector(held=100)
    response = collector.send([CALL])
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert status_message(response)[0] == 8
    collector = make_collector(waiting=0)
    assert collector.send([CALL]).status_code == 200


def test_many_senders_share_inserts_and_each_is_stored_exactly_once(
    collector: Collector, clickhouse: Connection
) -> None:
    senders, each = 16, 12
    failures: list[object] = []

    def send(sender: int) -> None:
        for number in range(each):
            response = collector.send([call(sender * 1000 + number * 10 + n) for n in range(3)])
            if response.status_code != 200:
                failures.append(response.content)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(clickhouse) == senders * each * 3
    assert metric(collector, "calls_stored_total") == senders * each * 3
    assert 0 < metric(collector, "inserts_total") < senders * each
    assert metric(collector, "queue_calls") == 0


def test_a_bad_body_among_good_ones_spoils_nobody(collector: Collector, clickhouse: Connection) -> None:
    statuses: dict[int, list[int]] = {0: [], 1: []}

    def good() -> None:
        statuses[0] += [collector.send([call(n)]).status_code for n in range(10)]

    def bad() -> None:
        for body in (b"\x0a\x05hel", b"", otlp.own_request([call(99)])[:-3], b"\xff" * 1000) * 3:
            statuses[1].append(collector.post(body).status_code)

    threads = [threading.Thread(target=work) for work in (good, bad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {0: [200] * 10, 1: [400, 200, 400, 400] * 3}
    assert count(clickhouse) == 10


def test_what_another_instrumentation_saw_too_is_one_call(collector: Collector, clickhouse: Connection) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "server.address": "openrouter.ai",
        "gen_ai.request.model": CALL.request_model,
        "gen_ai.response.id": CALL.response_id,
        "gen_ai.usage.input_tokens": 10240,
        "gen_ai.usage.output_tokens": 310,
    }
    seen = otlp.request([otlp.span(attributes=attributes, at=CALL.started_at)]).SerializeToString()
    for first, second in ((seen, otlp.own_request([CALL])), (otlp.own_request([CALL]), seen)):
        assert partial_success(collector.post(first)) == (0, "")
        assert partial_success(collector.post(second)) == (0, "")
        found = clickhouse.query("rows", "SELECT input_tokens, effective_cost, team FROM llm_calls FINAL")
        assert found == [(10240, Decimal("0.0021344"), "search")]


def test_json_of_broadcast_with_plain_numbers_is_taken(collector: Collector, clickhouse: Connection) -> None:
    message = otlp.as_json(otlp.request([otlp.own_span(CALL)], scope="spendwatch"))
    text = re.sub(r'"(intValue|startTimeUnixNano|endTimeUnixNano)": "(\d+)"', r'"\1": \2', json.dumps(message))
    assert partial_success(collector.post(text.encode(), content_type="application/json")) == (0, "")
    assert ids(clickhouse) == ["gen-1763769600-Ab3"]


def test_a_store_that_refuses_is_told_to_the_sender_without_its_secrets(
    collector: Collector, clickhouse: Connection, settings: Any
) -> None:
    right = settings.SPENDWATCH_CLICKHOUSE_DSN
    settings.SPENDWATCH_CLICKHOUSE_DSN = re.sub(r"//([^:]+):[^@]+@", r"//\1:wrong-password@", right)
    response = collector.send([CALL])
    assert (response.status_code, status_message(response)[0]) == (503, 14)
    assert int(response.headers["retry-after"]) > 0
    for secret in ("password", "127.0.0.1", "8123"):
        assert secret not in status_message(response)[1]
    assert collector.http.get(collector.url + "/readyz").status_code == 503
    settings.SPENDWATCH_CLICKHOUSE_DSN = right
    assert collector.send([CALL]).status_code == 200
    assert count(clickhouse) == 1


def test_a_connection_that_says_nothing_is_closed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MESSAGE_S", 0.2)
    for beginning in (b"", b"POST /v1/traces HTTP/1.1\r\nhost: "):
        with socket.create_connection(collector.address, timeout=30) as raw:
            raw.sendall(beginning)
            assert raw.recv(1) == b""


def test_a_commit_that_takes_too_long_is_answered_before_the_exporter_gives_up(
    make_collector: Callable[..., Collector], clickhouse: Connection
) -> None:
    response = make_collector(commit_s=0).send([CALL])
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "send them again" in status_message(response)[1]
    assert make_collector().send([CALL]).status_code == 200
    assert count(clickhouse) == 1
