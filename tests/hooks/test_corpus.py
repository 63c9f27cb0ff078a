"""Recorded provider traffic through the real hook: under its own host and path, over a socket, in arbitrary pieces."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from spendwatch import semconv
from spendwatch.calls import CallStatus, LLMCall
from tests.hooks.clients import HTTPX_KINDS, KINDS, Client, Kind
from tests.hooks.conftest import Spans
from tests.hooks.loopback import Answer, Loopback
from tests.wire import corpus

CASES = corpus.cases()
FORMATS = sorted({case["wire_format"] for case in CASES})

OTHERS = 6
"""Of each format so many cases, another draw for each, through the clients other than httpx."""

FIGURES = {
    **corpus.TOKENS,
    "operation": "operation_name",
    "request_model": "request_model",
    "response_model": "response_model",
    "response_id": "response_id",
    "provider_reported_cost_usd": "reported_cost",
    "upstream_cost_usd": "upstream_cost",
    "is_byok": "is_byok",
}


def pieces(data: bytes, randomness: random.Random) -> list[bytes]:
    out = []
    at = 0
    while at < len(data):
        # Small pieces at the start, where the framing is decided; after some, the rest at once, or it takes for ever.
        size = randomness.choice((1, 3, 50, 700, 5000)) if len(out) < 20 else len(data)
        out.append(data[at : at + size])
        at += size
    return out


def wrong(case: dict[str, Any], call: LLMCall) -> Iterator[str]:
    """Where the recorded call is not what the case expects."""
    expected = case["expected"]
    for name, field in FIGURES.items():
        found = getattr(call.usage if name in corpus.TOKENS else call, field)
        accepted = [expected[name], *case["ambiguous"].get(name, [])]
        if name == "response_id" and expected[name] is None:
            accepted.append(case["response_headers"].get("x-generation-id"))
        if not any(corpus._equal(found, one) for one in accepted):
            yield f"{name}: recorded {found!r}, expected {accepted[0]!r}"
    if list(call.finish_reasons) not in [expected["finish_reasons"], *case["ambiguous"].get("finish_reasons", [])]:
        yield f"finish_reasons: recorded {call.finish_reasons}, expected {expected['finish_reasons']}"
    accepted_status = {CallStatus.ERROR} if expected["is_error"] else {CallStatus.OK}
    if not expected["is_error"] and False in [
        expected["stream_complete"],
        *case["ambiguous"].get("stream_complete", []),
    ]:
        accepted_status = {CallStatus.ABORTED}
    if True in case["ambiguous"].get("stream_complete", []):
        accepted_status.add(CallStatus.OK)
    if call.status not in accepted_status:
        yield f"status: recorded {call.status}, expected {accepted_status}"
    if expected["is_error"]:
        names = [expected["error_type"], *case["ambiguous"].get("error_type", []), expected["error_code"]]
        if call.error_type not in {*filter(None, names), str(case["status"])}:
            yield f"error_type: recorded {call.error_type}, expected one of {names}"


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("wire_format", FORMATS)
def test_recorded_traffic_is_recorded_as_expected(
    wire_format: str, kind: Kind, provider: Loopback, spans: Spans
) -> None:
    randomness = random.Random(f"{wire_format} {kind}")
    failures: list[str] = []
    cases = [case for case in CASES if case["wire_format"] == wire_format]
    if kind not in HTTPX_KINDS:
        cases = randomness.sample(cases, min(len(cases), OTHERS))

    def body(client: Client) -> Iterator[Any]:
        known = 0
        for case in cases:
            data = corpus.body(case)
            asked = corpus.request(case)
            provider.answers = lambda seen, data=data, case=case: Answer(  # type: ignore[misc]
                chunks=pieces(data, randomness), status=case["status"], headers=case["response_headers"]
            )
            headers = {k: v for k, v in asked.headers.items() if k != "content-length"}
            url = f"http://{case['host']}{case['path']}"
            response = yield client.open(url, method=case["method"], headers=headers, content=asked.body)
            received = yield client.read(response)
            assert received == data, case["id"]
            recorded = spans()
            new, known = recorded[known:], len(recorded)
            if not case["expected"]["is_inference"]:
                if new:
                    failures.append(f"{case['id']}: is no inference but was recorded")
                continue
            if len(new) != 1:
                failures.append(f"{case['id']}: recorded {len(new)} times")
                continue
            failures.extend(f"{case['id']}: {text}" for text in wrong(case, as_call(new[0])))

    kind.run(body, proxy=provider.url)
    assert failures == []


def as_call(span: Any) -> LLMCall:
    return semconv.from_attributes(
        span.attributes,
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        parent_span_id=None,
        started_at=datetime.fromtimestamp(span.start_time / 1e9, UTC),
        duration_us=(span.end_time - span.start_time) // 1000,
        resource=span.resource.attributes,
    )
