"""Pydantic AI instrumented by Logfire, exporting to us: an agent with a tool, a streamed run, an error."""

import os

os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = os.environ["PROVIDER"] + "/v1/traces"

import asyncio

import logfire
from common import SYSTEM, USER, swallowing
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

logfire.configure(send_to_logfire=False, service_name="pydantic-ai", console=False, environment="recording")
logfire.instrument_pydantic_ai()

agent = Agent(OpenAIChatModel("gpt-4o-mini"), system_prompt=SYSTEM, name="forecaster")


@agent.tool_plain
def weather(city: str) -> str:
    return f"sunny in {city}"


async def main() -> None:
    with logfire.span("handle request"):
        await agent.run(USER)
    plain = Agent(OpenAIChatModel("gpt-4o-mini"), system_prompt=SYSTEM, name="streamer")
    async with plain.run_stream(USER) as result:
        await result.get_output()
    await Agent(OpenAIResponsesModel("gpt-4o-mini"), name="responder").run(USER)
    await Agent(AnthropicModel("claude-sonnet-4-5"), system_prompt=SYSTEM, name="claude").run(USER)
    with swallowing():
        await Agent(OpenAIChatModel("busy-model"), name="unlucky").run(USER)


asyncio.run(main())
logfire.force_flush()
