"""Beside other instrumentations of the same calls: one span of ours per HTTP call, in its place in their trace, and one
row at ingest when both are sent to the same server. Each is skipped by name where its package is not installed."""

import subprocess
import sys

import pytest

from tests.sdk.coexistence.conftest import Program, at_ingest

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


def need(module: str) -> None:
    """Skip where it can't be imported: it is missing, or does not fit the versions of the others here."""
    tried = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"{module} can't be imported ({(tried.stderr.strip().splitlines() or ['?'])[-1]})")


@pytest.mark.parametrize("first", ["spendwatch", "the other"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_genai_instrumentation_is_the_parent_and_one_row(other: str, first: str, program: Program) -> None:
    module, put_in = OTHERS[other]
    need(module)
    ours = "spendwatch.instrument(hosts={'127.0.0.1': 'openai'})"
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
    if other == "OpenInference":
        assert all(row.response_id is None for row in rows if row.source != "sdk")
        pytest.xfail("its spans name no id of the reply, so that a server can't tell that they are the same calls")
    assert len(rows) == 1  # the provider answers with the same id to both: the same call as far as a server can know
    assert (rows[0].usage.input_tokens, rows[0].usage.output_tokens, rows[0].source) == (1231, 47, "sdk")


def test_the_anthropic_sdks_own_span_is_the_parent_and_one_row(program: Program) -> None:
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


@pytest.mark.parametrize("first", ["spendwatch", "the other"])
def test_http_instrumentation_makes_a_child_and_no_second_call(first: str, program: Program) -> None:
    need("opentelemetry.instrumentation.httpx")
    ours = "spendwatch.instrument(hosts={'127.0.0.1': 'openai'})"
    other = "from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor as I; I().instrument()"
    order = [ours, other] if first == "spendwatch" else [other, ours]
    seen = program("\n".join(["own_provider()", *order, "call(2)"]))
    assert len(seen.ours) == 2
    http = [span for span in seen.apps if span["scope"] == "opentelemetry.instrumentation.httpx"]
    assert len(http) == 2
    assert {span["parent"] for span in http} == {span.span_id.hex() for span in seen.ours}
    assert len(at_ingest(seen)) == 1


def test_logfire_is_the_parent_and_one_row(program: Program) -> None:
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


def test_beside_langfuse_a_call_is_recorded_once(program: Program) -> None:
    need("langfuse")
    seen = program(f"""
    own_provider()
    os.environ.update(LANGFUSE_PUBLIC_KEY="pk-lf-x", LANGFUSE_SECRET_KEY="sk-lf-x", LANGFUSE_HOST="http://127.0.0.1:1")
    spendwatch.instrument(hosts={{"127.0.0.1": "openai"}})
    from langfuse.openai import openai
    client = openai.OpenAI(api_key="sk-x", base_url=os.environ["TEST_PROVIDER"] + "/v1")
    {ASK.strip().replace(chr(10), chr(10) + "    ")}
    """)
    assert len(seen.ours) == 1
    assert any("langfuse" in span["scope"] for span in seen.apps)
    # It does not make its span the current one, so ours stands where the app's code stood: at the root.
    assert not seen.ours[0].parent_span_id
    assert [row.source for row in at_ingest(seen)].count("sdk") == 1


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
def test_a_layer_over_the_sdk_is_one_call(layer: str, program: Program) -> None:
    module, text = LAYERS[layer]
    need(module)
    ours = "own_provider()\nspendwatch.instrument(hosts={'127.0.0.1': 'openai'})\n"
    seen = program(ours + text.replace("\n    ", "\n"))
    assert len(seen.ours) == 1
    assert len(at_ingest(seen)) == 1


def test_httpx_and_httpx2_in_one_process_are_recorded_alike(program: Program) -> None:
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
    assert first == second


def test_sending_what_was_recorded_makes_no_span_and_no_call(program: Program) -> None:
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
