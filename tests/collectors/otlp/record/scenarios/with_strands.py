"""Strands Agents' own telemetry: an agent with a tool, and one that fails."""

import os

os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = os.environ["PROVIDER"]

from common import PROVIDER, SYSTEM, USER, swallowing
from opentelemetry import trace
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from strands.telemetry import StrandsTelemetry

StrandsTelemetry().setup_otlp_exporter()
client = {"api_key": "sk-test", "base_url": f"{PROVIDER}/v1", "max_retries": 0}


@tool
def weather(city: str) -> str:
    """The weather of a city"""
    return f"sunny in {city}"


Agent(
    model=OpenAIModel(client_args=client, model_id="gpt-4o-mini"),
    tools=[weather],
    system_prompt=SYSTEM,
    name="forecaster",
    callback_handler=None,
)(USER)
with swallowing():
    Agent(
        model=OpenAIModel(client_args=client, model_id="busy-model"),
        name="unlucky",
        callback_handler=None,
        retry_strategy=None,
    )(USER)
trace.get_tracer_provider().force_flush()
