"""What an answer means, and what the shipper then does: real HTTP against a receiver that misbehaves on demand."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from spendwatch import config, otlp
from spendwatch.exporter import Exporter, Verdict, judge
from spendwatch.shipper import Shipper
from spendwatch.spool import Spool
from tests.hooks.loopback import Loopback
from tests.sdk.calls import make_call
from tests.sdk.sink import Post, Say, Sink


@pytest.fixture
def shipper(sink: Sink, tmp_path: Path) -> Iterator[tuple[Spool, Shipper]]:
    settings = config.resolve(endpoint=sink.url, environ={})
    spool = Spool(tmp_path, otlp.head(settings.resource), 1024 * 1024)
    shipping = Shipper(spool, Exporter(settings))
    yield spool, shipping
    shipping.stop()
    spool.close()


def fill(spool: Spool, count: int) -> None:
    for n in range(1, count + 1):
        spool.append(otlp.record(make_call(n)))


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.ACCEPTED),
        (202, Verdict.ACCEPTED),
        (400, Verdict.SMALLER),
        (401, Verdict.REFUSED),
        (403, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (408, Verdict.RETRY),
        (413, Verdict.SMALLER),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
        (301, Verdict.REFUSED),
    ],
)
def test_each_status_has_one_meaning(status: int, verdict: Verdict) -> None:
    assert judge(status, None, b"").verdict is verdict


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("86400", 600), ("soon", None), (None, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_is_read_and_bounded(value: str | None, seconds: float | None) -> None:
    assert judge(503, value, b"").retry_after_s == seconds


def test_a_batch_that_is_too_large_is_halved_until_it_fits(shipper: tuple[Spool, Shipper], sink: Sink) -> None:
    spool, shipping = shipper
    sink.say = lambda post: Say(status=413) if len(post.spans) > 3 else Say()
    fill(spool, 20)
    assert shipping.flush(10)
    assert len(sink.taken) == 20
    assert set(sink.taken.values()) == {1}
    assert shipping.lost == 0


def test_one_call_that_is_refused_for_good_costs_no_other(
    shipper: tuple[Spool, Shipper], sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    spool, shipping = shipper
    poison = f"{5:016x}"
    sink.say = lambda post: Say(status=400) if poison in {s.span_id.hex() for s in post.spans} else Say()
    fill(spool, 9)
    assert shipping.flush(10)
    assert sorted(sink.taken) == [f"{n:016x}" for n in range(1, 10) if n != 5]
    assert shipping.lost == 1
    assert "dropped" in caplog.text


def test_spans_that_the_server_says_it_did_not_take_are_counted(shipper: tuple[Spool, Shipper], sink: Sink) -> None:
    spool, shipping = shipper
    sink.say = lambda post: Say(rejected=2)
    fill(spool, 5)
    assert shipping.flush(10)
    assert shipping.lost == 2


def test_an_error_of_the_server_is_tried_again_until_it_passes(shipper: tuple[Spool, Shipper], sink: Sink) -> None:
    spool, shipping = shipper
    answers = iter([Say(status=500), Say(status=503, headers={"retry-after": "0"}), Say(status=429)])
    sink.say = lambda post: next(answers, Say())
    fill(spool, 3)
    assert shipping.flush(20)
    assert len(sink.posts) == 4
    assert set(sink.taken.values()) == {1}


def test_retry_after_holds_back_the_thread_but_not_a_flush(shipper: tuple[Spool, Shipper], sink: Sink) -> None:
    spool, shipping = shipper
    sink.say = lambda post: Say(status=503, headers={"retry-after": "600"})
    fill(spool, 1)
    assert not shipping.flush(1, retry=False)
    attempts = len(sink.posts)
    shipping.poke()
    sink.say = lambda post: Say()
    assert len(sink.posts) == attempts
    assert shipping.flush(10)


def test_a_connection_is_kept_open_and_made_anew_when_the_server_closed_it(
    shipper: tuple[Spool, Shipper], sink: Sink
) -> None:
    spool, shipping = shipper
    for n in range(1, 4):
        spool.append(otlp.record(make_call(n)))
        assert shipping.flush(10)
    assert sink.connections == 1
    sink.close_all()
    spool.append(otlp.record(make_call(9)))
    assert shipping.flush(10, retry=False)
    assert sink.connections == 2
    assert len(sink.taken) == 4


def test_a_large_backlog_goes_in_batches(shipper: tuple[Spool, Shipper], sink: Sink) -> None:
    spool, shipping = shipper
    fill(spool, 1200)
    assert shipping.flush(30)
    assert [len(post.spans) for post in sink.posts] == [512, 512, 176]


def test_uncompressed_bodies_and_further_headers_are_sent_as_set(sink: Sink, tmp_path: Path) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-scope=a%20b,Other=2",
    }
    settings = config.resolve(environ=environ)
    exporter = Exporter(settings)
    assert exporter.post(otlp.body(otlp.head({}), [otlp.record(make_call())])).verdict is Verdict.ACCEPTED
    exporter.close()
    post: Post = sink.posts[0]
    assert "content-encoding" not in post.headers
    assert (post.headers["x-scope"], post.headers["other"]) == ("a b", "2")


def test_the_systems_proxy_is_used(provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.always(b"", status=200, framing="length")
    monkeypatch.setenv("http_proxy", provider.url)
    exporter = Exporter(config.resolve(endpoint="http://spendwatch.example:4318", environ={}))
    assert exporter.post(b"").verdict is Verdict.ACCEPTED
    exporter.close()
    assert provider.seen[0].target == "http://spendwatch.example:4318/v1/traces"


def test_a_broken_https_server_is_only_a_reason_to_try_again(sink: Sink) -> None:
    settings = config.resolve(endpoint=sink.url.replace("http:", "https:"), environ={})
    outcome = Exporter(replace(settings, timeout_s=5)).post(b"")
    assert outcome.verdict is Verdict.RETRY


@pytest.mark.parametrize("status", [200, 400, 404, 422])
def test_a_web_page_is_no_receivers_answer_and_loses_nothing(
    status: int, shipper: tuple[Spool, Shipper], sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    spool, shipping = shipper
    sink.say = lambda post: Say(status=status, headers={"content-type": "text/html; charset=utf-8"})
    fill(spool, 3)
    assert not shipping.flush(2, retry=False)
    assert shipping.lost == 0
    assert spool.pending()
    assert "web page" in caplog.text
    sink.taken.clear()
    sink.say = lambda post: Say()
    assert shipping.flush(10)
    assert set(sink.taken.values()) == {1}
    assert len(sink.taken) == 3


def test_what_waits_is_squeezed_while_the_server_is_away_and_is_sent_when_it_is_back(
    shipper: tuple[Spool, Shipper], sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, shipping = shipper
    monkeypatch.setattr("spendwatch.spool.SEGMENT_BYTES", 100_000)
    monkeypatch.setattr("spendwatch.shipper.SQUEEZE_INTERVAL_S", 0.05)
    sink.say = lambda post: Say(status=503, headers={"retry-after": "600"})
    fill(spool, 1200)
    assert not shipping.flush(5, retry=False)
    before = sum(segment.size() for segment in spool.segments())
    until = time.monotonic() + 20
    while sum(segment.size() for segment in spool.segments()) > before / 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    sink.say = lambda post: Say()
    sink.taken.clear()
    assert shipping.flush(30)
    assert len(sink.taken) == 1200
    assert set(sink.taken.values()) == {1}
