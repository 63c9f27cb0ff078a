"""No content and no key leaves the process, touches the disk or stands in a log, in any format, however a call ends."""

import asyncio
import base64
import gzip
import logging
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from tests.hooks.loopback import Answer, Loopback
from tests.sdk.privacy.canary import Canary
from tests.sdk.sink import Say, Sink
from tests.wire import corpus

CASES = corpus.cases()
FORMATS = sorted({case["wire_format"] for case in CASES})
MOST = 14
"""Cases per format: all kinds of reply there are, then by order."""

CANARY = Canary("kanarie7qz31")

pytestmark = pytest.mark.filterwarnings("default")


def chosen(wire_format: str) -> list[dict[str, Any]]:
    """Of each kind of reply (streamed or not, failed or not, with tools or not) some."""
    kinds: dict[tuple[bool, ...], list[dict[str, Any]]] = {}
    for case in CASES:
        if case["wire_format"] == wire_format:
            expected = case["expected"]
            streamed = "event-stream" in str(case["response_headers"])
            kinds.setdefault((streamed, expected["is_error"], bool(expected["tool_calls"])), []).append(case)
    most = max(MOST // len(kinds), 2)
    return [case for several in kinds.values() for case in several[:most]]


class Outside:
    """All that could be seen of the app's calls from outside the process."""

    def __init__(self, sink: Sink, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self._sink = sink
        self._folder = folder
        self._caplog = caplog
        self.disk: list[bytes] = []

    def look_at_the_disk(self) -> None:
        """Remember what is in the files now, whole segments and their names."""
        for path in self._folder.rglob("*"):
            self.disk.append(str(path).encode())
            if path.is_file():
                self.disk.append(path.read_bytes())

    def all(self) -> Iterator[bytes]:
        yield from self.disk
        for post in self._sink.posts:
            yield post.body
            yield repr((post.path, post.headers)).encode()
        formatter = logging.Formatter("%(message)s")
        for record in self._caplog.records:
            # What clients log of their own is the app's to allow.
            if record.name.partition(".")[0] == "spendwatch":
                yield formatter.format(record).encode()


@pytest.fixture
def outside(sink: Sink, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Outside:
    caplog.set_level(logging.DEBUG)
    return Outside(sink, tmp_path / "spool", caplog)


def exchange(client: httpx.Client, case: dict[str, Any], provider: Loopback, ending: str, canary: Canary) -> None:
    """Make the case's call with canaries in it. ending: whole, left (by the app, half way), cut (by the provider)."""
    reply = canary.in_reply(corpus.body(case))
    headers = {**case["response_headers"], "x-note": canary.word}
    if ending == "gzip":
        reply = gzip.compress(reply)
        headers["content-encoding"] = "gzip"
    half = max(len(reply) // 2, 1)
    provider.answers = lambda seen: Answer(
        chunks=[reply[:half], reply[half:]] if ending != "cut" else [reply[:half]],
        status=case["status"],
        headers=headers,
        cut=ending == "cut",
    )
    headered = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    asked = canary.in_request(corpus.request(case), headered[len(case["id"]) % 4])
    url = f"http://{case['host']}{asked.path}"
    request = client.build_request(case["method"], url, headers=asked.headers, content=asked.body)
    response = client.send(request, stream=True)
    try:
        if ending == "left":
            next(response.iter_raw(), None)
        else:
            response.read()
    except httpx.RemoteProtocolError:
        assert ending == "cut"
    finally:
        response.close()


@pytest.mark.parametrize("ending", ["whole", "gzip", "left", "cut"])
@pytest.mark.parametrize("wire_format", FORMATS)
def test_no_content_and_no_key_gets_out(
    wire_format: str, ending: str, provider: Loopback, sink: Sink, outside: Outside
) -> None:
    cases = chosen(wire_format)
    sink.say = lambda post: Say(status=503)
    spendwatch.instrument(endpoint=sink.url, service="private")
    with warnings.catch_warnings(record=True) as warned, httpx.Client(proxy=provider.url) as client:
        warnings.simplefilter("always")
        for case in cases:
            exchange(client, case, provider, ending, CANARY)
    outside.look_at_the_disk()
    sink.say = lambda post: Say()
    assert spendwatch.flush(20)
    outside.look_at_the_disk()
    spend = [case for case in cases if case["expected"]["is_inference"]]
    assert len(sink.taken) >= len(spend)
    if ending in ("whole", "gzip"):
        # The readers did read what was planted in: the figures are there.
        counted = [n for span in sink.spans for n in tokens(span)]
        assert sorted(counted) == sorted(
            n for c in spend for n in (c["expected"]["input_tokens"], c["expected"]["output_tokens"]) if n is not None
        ) or any(c["ambiguous"] for c in spend)
    assert CANARY.found_in([*outside.all(), repr([str(w.message) for w in warned]).encode()]) == []


def tokens(span: Any) -> list[int]:
    names = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    return [a.value.int_value for a in span.attributes if a.key in names]


TOOLS = [
    case
    for case in CASES
    if case["expected"]["is_inference"]
    and case["expected"]["tool_calls"]
    # A frame with another name in it would fail its checksum.
    and b":message-type" not in corpus.body(case)
]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("wire_format", sorted({c["wire_format"] for c in TOOLS}))
def test_tools_names_are_kept_or_not_as_set(
    wire_format: str, kept: bool, provider: Loopback, sink: Sink, outside: Outside
) -> None:
    name = "kanarientool9x"
    cases = [c for c in TOOLS if c["wire_format"] == wire_format][:6]
    spendwatch.instrument(endpoint=sink.url, tool_names=kept)
    with httpx.Client(proxy=provider.url) as client:
        for case in cases:
            asked = corpus.request(case)
            body, question = corpus.body(case), asked.body or b""
            for tool in case["expected"]["tool_calls"]:
                body = body.replace(b'"%s"' % tool.encode(), b'"%s"' % name.encode())
                question = question.replace(b'"%s"' % tool.encode(), b'"%s"' % name.encode())
            provider.always(body, status=case["status"], headers=case["response_headers"])
            headers = {k: v for k, v in asked.headers.items() if k != "content-length"}
            client.request(case["method"], f"http://{case['host']}{case['path']}", headers=headers, content=question)
    outside.look_at_the_disk()
    assert spendwatch.flush(20)
    assert len(sink.taken) == len(cases)
    assert bool(Canary(name).found_in(outside.all())) is kept


def _illegal_header(url: str, key: str) -> None:
    # h11 quotes the header's whole value in its error.
    httpx.post(url, json={"model": "m", "messages": []}, headers={"authorization": f"Bearer {key}\n"}, trust_env=False)


def _refused(url: str, key: str) -> None:
    httpx.post(
        f"http://127.0.0.1:1/v1/chat/completions?key={key}", json={"model": "m", "messages": []}, trust_env=False
    )


def _bad_proxy(url: str, key: str) -> None:
    with httpx.Client(proxy=f"http://{key}:{key}@127.0.0.1:1") as client:
        client.post(url, json={"model": "m", "messages": []})


def _own_transport(url: str, key: str) -> None:
    class Failing(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError(f"no way to {request.url} with {request.headers} as {key}")

    with httpx.Client(transport=Failing()) as client:
        client.post(f"{url}?key={key}", json={"model": "m", "messages": [{"role": "user", "content": key}]})


@pytest.mark.parametrize("failing", [_illegal_header, _refused, _bad_proxy, _own_transport])
def test_an_error_whose_text_has_the_key_is_recorded_without_it(
    failing: Callable[[str, str], None], provider: Loopback, sink: Sink, outside: Outside
) -> None:
    spendwatch.instrument(endpoint=sink.url, service="private")
    with pytest.raises(httpx.TransportError):
        failing(f"{provider.url}/v1/chat/completions", CANARY.word)
    outside.look_at_the_disk()
    assert spendwatch.flush(20)
    assert len(sink.taken) == 1
    assert CANARY.found_in(outside.all()) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_http_span_under_a_call_has_no_key_of_its_address(asynchronous: bool, provider: Loopback) -> None:
    memory, traces = InMemorySpanExporter(), TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(memory))
    spendwatch.instrument(tracer_provider=traces, http_spans=True)
    provider.always(b'{"candidates": [], "usageMetadata": {"promptTokenCount": 3}}', framing="length")
    url = f"{provider.url}/v1beta/models/gemini-2.5-flash:generateContent?alt=json&key={CANARY.word}"
    ask = {"contents": [{"parts": [{"text": "hi"}]}]}

    async def there() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(url, json=ask)

    if asynchronous:
        asyncio.run(there())
    else:
        httpx.post(url, json=ask, trust_env=False)
    found = memory.get_finished_spans()
    assert len(found) == 2
    assert provider.seen[0].target.endswith(CANARY.word)
    assert CANARY.found_in([span.to_json().encode() for span in found]) == []
    assert "alt=json" in found[0].to_json()


def test_a_fault_of_our_own_says_nothing_of_the_call(
    provider: Loopback, sink: Sink, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spendwatch.hooks import guard
    from spendwatch.wire.openai_chat import ChatReader

    def broken(self: ChatReader, complete: bool) -> None:
        raise ValueError(f"could not read {CANARY.word}")

    monkeypatch.setenv("SPENDWATCH_STRICT", "0")
    monkeypatch.setattr(ChatReader, "finish", broken)
    spendwatch.instrument(endpoint=sink.url)
    try:
        httpx.post(f"{provider.url}/v1/chat/completions", json={"model": "m", "messages": []}, trust_env=False)
        assert guard.faults
    finally:
        guard.faults.clear()
    assert CANARY.found_in(outside.all()) == []


def test_the_canaries_would_be_found() -> None:
    """The search itself: a test that can't fail would prove nothing."""
    word = CANARY.word.encode()
    for hidden in (
        b"x" + word + b"y",
        word.hex().encode(),
        base64.b64encode(b"a long prompt with " + word + b" within it"),
        base64.b64encode(b"another prompt: " + word + b" within it"),
        base64.b64encode(b"a third one has " + word + b"."),
        b"\0\0" + gzip.compress(b"prompt " + word),
        b"--" + zlib.compress(b"prompt " + word),
        CANARY.word.upper().encode(),
    ):
        assert CANARY.found_in([hidden]), hidden
    planted = CANARY.in_reply(b'{"model": "m", "choices": [{"message": {"content": "hi", "role": "assistant"}}]}')
    assert planted.count(word) == 1
    assert CANARY.in_reply(b'data: {"delta": "x"}\n\ndata: [DONE]\n').count(word) == 1
