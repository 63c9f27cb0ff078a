"""Pieces of a body wait a little before they are read: never many bytes of them, and never so that one is missed."""

from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spendwatch
from spendwatch.hooks import exchange
from tests.hooks.replies import ASK, chat_events

URL = "https://api.openai.com/v1/chat/completions"


class Pieces(httpx.SyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


def client(pieces: list[bytes]) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Pieces(pieces))))


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    found = InMemorySpanExporter()
    spendwatch.instrument(span_exporter=found)
    yield found
    spendwatch.uninstrument()


def test_of_a_long_stream_few_bytes_wait(exporter: InMemorySpanExporter) -> None:
    most = 0
    with client(chat_events(3_000)).stream("POST", URL, json={**ASK, "stream": True}) as response:
        for _ in response.iter_raw():
            (watching,) = exchange.live
            most = max(most, sum(map(len, watching.held)))
    assert 0 < most <= exchange.HOLD
    assert spendwatch.flush()
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 1231


@pytest.mark.parametrize("empty", [0, 1, 3])
@pytest.mark.parametrize("read", [1, 2, 40, 150])
def test_what_waits_when_the_app_leaves_is_read(exporter: InMemorySpanExporter, empty: int, read: int) -> None:
    pieces = [b""] * empty + chat_events(200)
    taken = 0
    with client(pieces).stream("POST", URL, json={**ASK, "stream": True}) as response:
        for _ in response.iter_raw():
            taken += 1
            if taken == read:
                break
    assert spendwatch.flush()
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["spendwatch.status"] == "aborted"
    assert span.attributes["gen_ai.response.time_to_first_chunk"]
    said = "".join(f"w{n} " for n in range(read))
    assert span.attributes["spendwatch.fingerprint.response_length"] == len(said)
