"""Beside other instrumentations of the same calls: one span of ours per HTTP call, in its place in their trace, and one
row at ingest when both are sent to the same server. Each is skipped by name where its package is not installed."""

import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.hooks.loopback import Answer, Loopback
from tests.hooks.loopback import Seen as Asked
from tests.sdk.coexistence.conftest import PEERS, Ingest, Program, Seen, need
from tests.sdk.sink import Sink

OPENAI = """
import openai
client = openai.OpenAI(api_key="sk-x", base_url=os.environ["TEST_PROVIDER"] + "/v1")
"""
ASK = """
reply = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
assert reply.usage.prompt_tokens == 1231
"""

# What is in the process -> its module, how it is put in, the scope that its spans carry.
OTHERS = {
    "OTel GenAI (openai-v2)": (
        "opentelemetry.instrumentation.openai_v2",
        "from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor; OpenAIInstrumentor().instrument()",
    ),
    "OTel GenAI (genai-openai)": (
        "opentelemetry.instrumentation.genai.openai",
        "from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor; OpenAIInstrumentor().instrument()",
    ),
    "OpenLLMetry": (
        "opentelemetry.instrumentation.openai",
        "from opentelemetry.instrumentation.openai import OpenAIInstrumentor; OpenAIInstrumentor().instrument()",
    ),
    "OpenInference": (
        "openinference.instrumentation.openai",
        "from openinference.instrumentation.openai import OpenAIInstrumentor; OpenAIInstrumentor().instrument()",
    ),
}


@pytest.mark.parametrize("host", ["a known one", "unknown"])
@pytest.mark.parametrize("first", ["spendwatch", "the other"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_genai_instrumentation_is_the_parent_and_one_row(
    other: str, first: str, host: str, program: Program, at_ingest: Ingest
) -> None:
    module, put_in = OTHERS[other]
    need(module)
    # A host that we don't know is the provider's name to us; to them every client of OpenAI's calls "openai".
    ours = "spendwatch.instrument()" if host == "unknown" else "spendwatch.instrument(hosts={'127.0.0.1': 'openai'})"
    order = [ours, put_in] if first == "spendwatch" else [put_in, ours]
    seen = program("\n".join(["own_provider()", *order, OPENAI, ASK, ASK]))
    assert len(seen.ours) == 2
    assert len({span.span_id for span in seen.ours}) == 2
    theirs = {span["span_id"]: span for span in seen.apps if not span["scope"].startswith("spendwatch")}
    parents = [span.parent_span_id.hex() for span in seen.ours]
    assert set(parents) <= set(theirs)
    assert len(set(parents)) == 2
    for span in seen.ours:
        assert span.trace_id.hex() == theirs[span.parent_span_id.hex()]["trace_id"]
    rows = at_ingest(seen)
    assert len(rows) == 2
    for row in rows:
        assert (row.usage.input_tokens, row.usage.output_tokens, row.source) == (1231, 47, "sdk")


@pytest.mark.parametrize("between", ["", "with trace.get_tracer('app').start_as_current_span('wrapper'):\n    "])
def test_all_of_them_at_once_and_a_retry_are_one_row_a_call(
    between: str, program: Program, at_ingest: Ingest, provider: Loopback
) -> None:
    need(*(module for name, (module, _) in OTHERS.items() if "v2" not in name))
    good = provider.answers

    def answer(asked: Asked) -> Answer:
        if len(provider.seen) == 1:
            return Answer(chunks=[b'{"error": {"message": "slow down"}}'], status=429, framing="length")
        return good(asked)

    provider.answers = answer
    put_in = [text for name, (_, text) in OTHERS.items() if "v2" not in name]
    ask = between + ASK.strip().replace("\n", "; ")
    seen = program("\n".join(["own_provider()", "spendwatch.instrument()", *put_in, OPENAI, ask]))
    assert len(seen.ours) == 2  # the attempt that was refused, and the one that was not
    rows = at_ingest(seen)
    assert sorted(row.http_status or 0 for row in rows) == [200, 429]
    assert [row.source for row in rows] == ["sdk", "sdk"]


def test_the_anthropic_sdks_own_span_is_the_parent_and_one_row(program: Program, at_ingest: Ingest) -> None:
    need("anthropic")
    seen = program("""
    own_provider()
    spendwatch.instrument(hosts={"127.0.0.1": "anthropic"})
    from tests.hooks.loopback import Loopback
    from tests.hooks.replies import MESSAGE
    server = Loopback()
    server.__enter__()
    server.always(json.dumps(MESSAGE).encode(), framing="length")
    import anthropic
    client = anthropic.Anthropic(api_key="sk-ant-x", base_url=server.url)
    client.messages.create(model="claude-sonnet-4-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    """)
    assert len(seen.ours) == 1
    (ours,) = seen.ours
    rows = at_ingest(seen)
    assert len(rows) == 1
    assert rows[0].source == "sdk"
    assert rows[0].usage.output_tokens == 83
    assert rows[0].usage.input_tokens == 311 + 2048 + 512
    own = [span for span in seen.apps if "anthropic" in span["scope"]]
    if own:  # those versions of the SDK that make one
        assert ours.parent_span_id.hex() == own[0]["span_id"]


def test_in_the_apps_own_traces_an_anthropic_call_is_one_span_with_tokens(program: Program) -> None:
    need("anthropic._tracing")  # the versions that make a span themselves
    seen = program("""
    from tests.hooks.loopback import Answer, Loopback
    from tests.hooks.replies import MESSAGE
    refused = Answer(chunks=[b'{"type": "error"}'], status=429, headers={"retry-after-ms": "1"}, framing="length")
    good = Answer(chunks=[json.dumps(MESSAGE).encode()], framing="length")
    server = Loopback()
    server.answers = lambda seen: refused if len(server.seen) == 1 else good
    server.__enter__()
    os.environ.pop("SPENDWATCH_ENDPOINT")
    spendwatch.instrument(tracer_provider=own_provider(), hosts={"127.0.0.1": "anthropic"}, http_spans=False)
    import anthropic
    client = anthropic.Anthropic(api_key="sk-ant-x", base_url=server.url)
    client.messages.create(model="claude-sonnet-4-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    """)
    told = [span for span in seen.apps if "gen_ai.usage.output_tokens" in span["attributes"]]
    assert [span["scope"] for span in told] == ["com.anthropic.sdk.python"]
    assert told[0]["attributes"]["spendwatch.cost.basis"] == "listed"
    refused = [span for span in seen.apps if span["scope"] == "spendwatch"]
    assert [span["attributes"]["http.response.status_code"] for span in refused] == [429]
    assert refused[0]["parent"] == told[0]["span_id"]


def test_in_the_apps_own_traces_an_anthropic_stream_left_early_tells_its_tokens_once(program: Program) -> None:
    need("anthropic._tracing")
    seen = program("""
    from tests.hooks.loopback import Answer, Loopback
    from tests.hooks.replies import SSE, message_events
    server = Loopback()
    server.always(*message_events(), headers=SSE)
    server.__enter__()
    os.environ.pop("SPENDWATCH_ENDPOINT")
    spendwatch.instrument(tracer_provider=own_provider(), hosts={"127.0.0.1": "anthropic"}, http_spans=False)
    import anthropic
    client = anthropic.Anthropic(api_key="sk-ant-x", base_url=server.url)
    ask = [{"role": "user", "content": "hi"}]
    stream = client.messages.create(model="claude-sonnet-4-5", max_tokens=9, messages=ask, stream=True)
    next(iter(stream))
    stream.close()
    """)
    told = [span["attributes"] for span in seen.apps if "gen_ai.usage.cache_read.input_tokens" in span["attributes"]]
    assert len(told) == 1
    (ours,) = [span["attributes"] for span in seen.apps if "spendwatch.status" in span["attributes"]]
    assert ours["spendwatch.status"] == "aborted"
    assert ours["gen_ai.response.id"] == "msg_plain1"


AIO = """
import aiohttp, asyncio
async def ask():
    async with aiohttp.ClientSession() as session:
        async with session.post(URL, json=BODY) as reply:
            await reply.read()
for _ in range(2): asyncio.run(ask())
"""
# What is in the process -> its instrumentor, what asks twice, and where its spans stand to ours.
HTTP = {
    "httpx": ("httpx.HTTPXClientInstrumentor", "call(2)", "below"),
    "requests": (
        "requests.RequestsInstrumentor",
        "import requests\nfor _ in range(2): requests.post(URL, json=BODY).raise_for_status()",
        "above",
    ),
    "urllib3": (
        "urllib3.URLLib3Instrumentor",
        "import urllib3\nfor _ in range(2): urllib3.PoolManager().request('POST', URL, json=BODY)",
        "above",
    ),
    "aiohttp": ("aiohttp_client.AioHttpClientInstrumentor", AIO, "above"),
}


@pytest.mark.parametrize("http_spans", [None, True, False])
@pytest.mark.parametrize("first", ["spendwatch", "the other"])
@pytest.mark.parametrize("client", HTTP)
def test_http_instrumentation_makes_one_span_a_call_and_no_second_call(
    client: str, first: str, http_spans: bool | None, program: Program, at_ingest: Ingest, provider: Loopback
) -> None:
    instrumentor, ask, place = HTTP[client]
    module, name = instrumentor.split(".")
    need(f"opentelemetry.instrumentation.{module}", "opentelemetry.instrumentation.httpx")
    ours = f"spendwatch.instrument(hosts={{'127.0.0.1': 'openai'}}, http_spans={http_spans})"
    other = f"from opentelemetry.instrumentation.{module} import {name}; {name}().instrument()"
    order = [ours, other] if first == "spendwatch" else [other, ours]
    body = 'BODY = {"model": "gpt-4o-mini", "messages": []}'
    seen = program("\n".join(["own_provider()", *order, body, ask]))
    assert len(seen.ours) == 2
    http = [span for span in seen.apps if span["scope"] != "spendwatch"]
    assert [span["scope"] for span in http] == [f"opentelemetry.instrumentation.{module}"] * 2
    if place == "below" and http_spans is False:
        assert {span["parent"] for span in http} == {None}  # as without us
    elif place == "below":
        assert {span["parent"] for span in http} == {span.span_id.hex() for span in seen.ours}
    else:
        assert {span["span_id"] for span in http} == {span.parent_span_id.hex() for span in seen.ours}
    # The header is theirs: their spans' context goes to the provider as without us.
    sent = {asked.headers["traceparent"].split("-")[2] for asked in provider.seen}
    assert sent == {span["span_id"] for span in http}
    assert len(at_ingest(seen)) == 2


def test_logfire_is_the_parent_and_one_row(program: Program, at_ingest: Ingest) -> None:
    need("logfire")
    need("opentelemetry.instrumentation.httpx")
    seen = program(f"""
    import logfire
    logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[SimpleSpanProcessor(memory)])
    spendwatch.instrument(hosts={{"127.0.0.1": "openai"}})
    {OPENAI.strip().replace(chr(10), chr(10) + "    ")}
    logfire.instrument_openai(client)
    {ASK.strip().replace(chr(10), chr(10) + "    ")}
    """)
    assert len(seen.ours) == 1
    theirs = {span["span_id"] for span in seen.apps if span["scope"].startswith("logfire")}
    assert seen.ours[0].parent_span_id.hex() in theirs
    rows = at_ingest(seen)
    assert len(rows) == 1
    assert rows[0].source == "sdk"


def _named(seen: Seen, name: str) -> dict[str, Any] | None:
    return next((span for span in seen.apps if span["name"] == name), None)


@pytest.mark.parametrize("where", ["alone", "under a span of the app's"])
def test_beside_langfuse_a_call_is_one_row(where: str, program: Program, at_ingest: Ingest) -> None:
    need("langfuse")
    span = "with trace.get_tracer('app').start_as_current_span('app'):\n        " if where != "alone" else ""
    seen = program(f"""
    own_provider()
    os.environ.update(LANGFUSE_PUBLIC_KEY="pk-lf-x", LANGFUSE_SECRET_KEY="sk-lf-x", LANGFUSE_HOST="http://127.0.0.1:1")
    spendwatch.instrument(hosts={{"127.0.0.1": "openai"}})
    from langfuse.openai import openai
    client = openai.OpenAI(api_key="sk-x", base_url=os.environ["TEST_PROVIDER"] + "/v1")
    {span}{ASK.strip().replace(chr(10), "; ")}
    """)
    assert len(seen.ours) == 1
    assert any("langfuse" in span["scope"] for span in seen.apps)
    # It does not make its span the current one, so ours stands where the app's code stood.
    assert seen.ours[0].parent_span_id.hex() == (within["span_id"] if (within := _named(seen, "app")) else "")
    assert [row.source for row in at_ingest(seen)] == ["sdk"]


LAYERS = {
    "LangChain": (
        "langchain_openai",
        """
    from langchain_openai import ChatOpenAI
    model = ChatOpenAI(model="gpt-4o-mini", api_key="sk-x", base_url=os.environ["TEST_PROVIDER"] + "/v1")
    assert model.invoke("hi").content == "Paris."
    """,
    ),
    "LiteLLM": (
        "litellm",
        """
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm
    litellm.telemetry = False
    reply = litellm.completion(model="openai/gpt-4o-mini", api_key="sk-x", api_base=os.environ["TEST_PROVIDER"] + "/v1",
                               messages=[{"role": "user", "content": "hi"}])
    assert reply.choices[0].message.content == "Paris."
    """,
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_over_the_sdk_is_one_call(layer: str, program: Program, at_ingest: Ingest) -> None:
    module, text = LAYERS[layer]
    need(module)
    ours = "own_provider()\nspendwatch.instrument(hosts={'127.0.0.1': 'openai'})\n"
    seen = program(ours + text.replace("\n    ", "\n"))
    assert len(seen.ours) == 1
    assert len(at_ingest(seen)) == 1


def test_two_layers_of_one_instrumentation_under_a_span_of_the_apps_are_one_row(
    program: Program, at_ingest: Ingest
) -> None:
    need("openinference.instrumentation.langchain", "openinference.instrumentation.openai", "langchain_openai")
    seen = program("""
    own_provider()
    spendwatch.instrument()
    from openinference.instrumentation.langchain import LangChainInstrumentor; LangChainInstrumentor().instrument()
    from openinference.instrumentation.openai import OpenAIInstrumentor; OpenAIInstrumentor().instrument()
    from langchain_openai import ChatOpenAI
    model = ChatOpenAI(model="gpt-4o-mini", api_key="sk-x", base_url=os.environ["TEST_PROVIDER"] + "/v1")
    with trace.get_tracer("app").start_as_current_span("app"):
        model.invoke("hi")
        model.invoke("ho")
    """)
    kinds = [span["attributes"].get("openinference.span.kind") for span in seen.apps]
    assert kinds.count("LLM") == 4
    assert len(seen.ours) == 2
    assert [row.source for row in at_ingest(seen)] == ["sdk", "sdk"]


def test_httpx_and_httpx2_in_one_process_are_recorded_alike(program: Program, at_ingest: Ingest) -> None:
    need("httpx2")
    seen = program("""
    spendwatch.instrument(service="both")
    import httpx2
    body = {"model": "gpt-4o-mini", "messages": []}
    for module in (httpx, httpx2):
        with module.Client(trust_env=False) as client:
            client.post(URL, json=body).raise_for_status()
    """)
    assert len(seen.ours) == 2
    first, second = ({a.key: a.value for a in span.attributes} for span in seen.ours)
    assert first.pop("gen_ai.response.id") != second.pop("gen_ai.response.id")
    assert first == second


def test_sending_what_was_recorded_makes_no_span_and_no_call(program: Program, at_ingest: Ingest) -> None:
    need("opentelemetry.instrumentation.httpx")
    seen = program("""
    own_provider()
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
    HTTPXClientInstrumentor().instrument()
    try:
        from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
        URLLib3Instrumentor().instrument()
    except ImportError:
        pass
    # Even a server whose address looks like a provider's.
    spendwatch.instrument(service="both", hosts={"127.0.0.1": "openai"})
    call(3)
    for _ in range(3):
        assert spendwatch.flush(20)
    """)
    assert len(seen.ours) == 3
    assert len(seen.apps) in (
        3,
        6,
    )  # the HTTP spans of the calls, and the calls where they are shown in the app's traces
    assert all("v1/traces" not in str(span["attributes"]) for span in seen.apps)


def test_the_launcher_puts_us_in_with_the_others_it_finds(
    sink: Sink, provider: Loopback, tmp_path: Path, at_ingest: Ingest
) -> None:
    need("opentelemetry.distro", "opentelemetry.instrumentation.requests", "opentelemetry.instrumentation.httpx")
    ask = """
    import os, httpx, requests
    url, body = os.environ["TEST_PROVIDER"] + "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": []}
    httpx.post(url, json=body).raise_for_status()
    requests.post(url, json=body).raise_for_status()
    """
    program = tmp_path / "app.py"
    program.write_text(textwrap.dedent(ask))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SPENDWATCH_", "OTEL_", "PYTEST_", "DJANGO_"))}
    done = subprocess.run(
        [str(Path(PEERS).with_name("opentelemetry-instrument")), PEERS, str(program)],
        env={
            **clean,
            "PATH": f"{Path(PEERS).parent}{os.pathsep}{clean.get('PATH', '')}",
            "SPENDWATCH_ENDPOINT": sink.url,
            "SPENDWATCH_SPOOL_DIR": str(tmp_path / "spool"),
            "TEST_PROVIDER": provider.url,
            "NO_PROXY": "*",
            **{f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")},
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(sink.spans) == 2
    # Each provider request carries the header of the HTTP span that their instrumentation made: below ours, above ours.
    sent = [asked.headers["traceparent"].split("-") for asked in provider.seen]
    assert [span.trace_id.hex() for span in sink.spans] == [trace_id for _, trace_id, _, _ in sent]
    assert sink.spans[1].parent_span_id.hex() == sent[1][2]
    assert len(at_ingest(Seen(list(sink.spans), []))) == 2
