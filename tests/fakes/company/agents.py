"""Larkfield's five agents. Each has a key, a team and a way to work; each method is one piece of work.

The script in a request tells the provider on loopback what to answer, since there is no model behind it. `when` places
a piece of work on an earlier day: the process's clock is set back for it, and the provider is told.
"""

import contextlib
import json
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import anthropic
import httpx2
import openai
import time_machine

import spendwatch

CHEAP = "meta-llama/llama-3.3-70b-instruct"
MINI = "openai/gpt-4.1-mini"
THINKER = "openai/gpt-5-mini"
SONNET = "anthropic/claude-sonnet-4.5"

KEYS = {
    "helpdesk": "sk-or-v1-larkfield-support",
    "ranker": "sk-or-v1-larkfield-search",
    "crawler": "sk-or-v1-larkfield-research",
    "analyst": "sk-or-v1-larkfield-finance",
    "exporter": "sk-or-v1-larkfield-docs",
}

SEARCH_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "web_search",
        "description": "Search the web.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}


@contextlib.contextmanager
def at(when: datetime | None) -> Iterator[dict[str, str]]:
    """Set the clock back to `when`; the headers that tell the provider on loopback to do the same."""
    if when is None:
        yield {}
        return
    with time_machine.travel(when, tick=True):
        yield {"X-Demo-Time": when.isoformat()}


class Agents:
    """The agents and their clients. `finished` counts the calls whose end the app saw, by provider."""

    def __init__(self, openrouter_url: str, seed: int = 7) -> None:
        port = httpx2.URL(openrouter_url).port
        self._openrouter_url = openrouter_url
        self._random = random.Random(seed)
        self._clients = {
            name: openai.OpenAI(api_key=key, base_url=openrouter_url, max_retries=2) for name, key in KEYS.items()
        }
        # The direct provider is the same process under its other name, so that each name can be one provider.
        self._anthropic = anthropic.Anthropic(
            api_key="sk-ant-larkfield", base_url=f"http://localhost:{port}", max_retries=1
        )
        self.finished = {"openrouter": 0, "anthropic": 0}

    def name_keys(self) -> None:
        """Give the keys their names at the provider, as somebody did in its dashboard."""
        base = self._openrouter_url.removesuffix("/api/v1")
        for name, key in KEYS.items():
            httpx2.post(f"{base}/_keys", json={"secret": key, "name": f"larkfield-{name}"}).raise_for_status()

    def helpdesk(self, when: datetime | None = None) -> None:
        """Answer a customer: a stream over a long, mostly cached prompt."""
        prompt = self._random.randrange(60_000, 110_000)
        script = {
            "reply": "Your order left our warehouse this morning and should reach you by Friday.",
            "chunks": 6,
            "tokens": {"prompt": prompt, "cached": prompt * 8 // 10, "completion": self._random.randrange(80, 400)},
        }
        session = f"ticket-{self._random.randrange(10_000, 99_999)}"
        with at(when) as headers, spendwatch.tags(team="support", agent="helpdesk", session=session, feature="chat"):
            stream = self._clients["helpdesk"].chat.completions.create(
                model=MINI,
                messages=[{"role": "user", "content": f"Where is the order of {session}?"}],
                stream=True,
                extra_body={"script": script},
                extra_headers=headers,
            )
            for _ in stream:
                pass
        self.finished["openrouter"] += 1

    def ranker(self, when: datetime | None = None, *, think: bool = False) -> None:
        """Rank search results: small and cheap, now and then with a model that reasons first."""
        completion = self._random.randrange(300, 900)
        script = {
            "reply": "3,1,2",
            "provider": "Azure" if think else "Groq",
            "tokens": {
                "prompt": self._random.randrange(9_000, 24_000),
                "completion": completion,
                "reasoning": completion * 3 // 4 if think else 0,
            },
        }
        with at(when) as headers, spendwatch.tags(team="search", agent="ranker", feature="ranking"):
            self._clients["ranker"].chat.completions.create(
                model=THINKER if think else CHEAP,
                messages=[{"role": "user", "content": f"Rank these books for shelf {completion}."}],
                extra_body={"script": script},
                extra_headers=headers,
            )
        self.finished["openrouter"] += 1

    def summariser(self, when: datetime | None = None) -> None:
        """Summarise a chapter with Anthropic itself: a prompt kept in its cache for an hour."""
        first = self._random.random() < 0.25
        cached = 140_000
        tokens = {
            "prompt": cached + self._random.randrange(5_000, 20_000),
            "completion": self._random.randrange(200, 700),
            **({"cache_write": cached, "cache_write_1h": cached} if first else {"cached": cached}),
        }
        with at(when), spendwatch.tags(team="docs", agent="summariser", feature="summaries"):
            self._anthropic.messages.create(
                model="claude-sonnet-4-5",
                max_tokens=1_000,
                system="You summarise books for Larkfield's catalogue.",
                messages=[{"role": "user", "content": f"Summarise chapter {tokens['completion']}."}],
                extra_body={"script": {"reply": "A keeper of bees learns to forgive.", "tokens": tokens}},
            )
        self.finished["anthropic"] += 1

    def analyst(self, when: datetime | None = None) -> None:
        """A forecast under the company's own provider key (BYOK): OpenRouter charges only its fee."""
        script = {"reply": "Up 4 %.", "byok": True, "tokens": {"prompt": 90_000, "completion": 1_700, "cached": 50_000}}
        with at(when) as headers, spendwatch.tags(team="finance", agent="analyst", feature="forecast"):
            self._clients["analyst"].chat.completions.create(
                model=SONNET,
                messages=[{"role": "user", "content": "Forecast November."}],
                extra_body={"script": script},
                extra_headers=headers,
            )
        self.finished["openrouter"] += 1

    def crawler(self, when: datetime | None = None, *, turns: int = 3) -> None:
        """Research a question: search, read, answer. Every search is another one, so it moves on."""
        question = f"Who printed edition {self._random.randrange(1_000, 9_999)}?"
        messages: list[Any] = [{"role": "user", "content": question}]
        with at(when) as headers, spendwatch.tags(team="research", agent="crawler", session=question[-5:-1]):
            for turn in range(turns):
                last = turn == turns - 1
                script = {
                    "reply": "It was printed in Leipzig." if last else "",
                    "tool_calls": []
                    if last
                    else [{"name": "web_search", "arguments": {"query": f"{question} {turn}"}}],
                    "tokens": {"prompt": 30_000 + 20_000 * turn, "cached": 20_000 * turn, "completion": 620},
                }
                self._turn(messages, script, headers, result=f"{self._random.random()} results about printers")

    def runaway(self, repeats: int) -> Iterator[int]:
        """The same search again and again, with the same answer each time; yields after each repeat."""
        messages: list[Any] = [{"role": "user", "content": "Find Larkfield's returns policy of 1998."}]
        arguments = {"query": "larkfield returns policy 1998"}
        with spendwatch.tags(team="research", agent="crawler", session=f"crawl-{self._random.randrange(1_000_000)}"):
            for turn in range(repeats):
                script = {
                    "reply": "",
                    "tool_calls": [{"name": "web_search", "arguments": arguments}],
                    "tokens": {"prompt": 20_000 + 600 * turn, "completion": 90},
                }
                self._turn(messages, script, {}, result="0 results")
                yield turn + 1

    def _turn(self, messages: list[Any], script: dict[str, Any], headers: dict[str, str], *, result: str) -> None:
        reply = self._clients["crawler"].chat.completions.create(
            model=SONNET,
            messages=messages,
            tools=[SEARCH_TOOL],
            extra_body={"script": script},
            extra_headers=headers,
        )
        self.finished["openrouter"] += 1
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        messages.extend(
            {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"found": result})}
            for call in message.tool_calls or []
        )

    def export(self) -> None:
        """One call of the nightly export: half a dollar of a dear model."""
        script = {"reply": "<catalogue/>", "tokens": {"prompt": 120_000, "completion": 10_000}}
        with spendwatch.tags(team="docs", agent="exporter", feature="nightly-export"):
            self._clients["exporter"].chat.completions.create(
                model=SONNET,
                messages=[{"role": "user", "content": "Export the catalogue."}],
                extra_body={"script": script},
            )
        self.finished["openrouter"] += 1

    def rate_limited(self) -> None:
        """Refused once with 429; the SDK tries again and gets its answer: two calls, one of them billed."""
        self._queue(MINI, {"error": {"status": 429, "message": "slow down", "retry_after_s": 0}})
        with spendwatch.tags(team="support", agent="helpdesk", feature="chat"):
            self._clients["helpdesk"].chat.completions.create(
                model=MINI, messages=[{"role": "user", "content": "Is the shop open today?"}]
            )
        self.finished["openrouter"] += 1

    def failing(self) -> None:
        """A provider that breaks in the middle of its answer."""
        script = {"reply": "Let me see", "error": {"status": 502, "message": "provider gone", "after_chunks": 1}}
        with spendwatch.tags(team="search", agent="ranker", feature="ranking"), contextlib.suppress(openai.APIError):
            stream = self._clients["ranker"].chat.completions.create(
                model=CHEAP,
                messages=[{"role": "user", "content": "Rank again."}],
                stream=True,
                extra_body={"script": script},
            )
            for _ in stream:
                pass

    def disconnect(self, when: datetime | None = None) -> None:
        """A reader who leaves after the first words; the provider goes on, and bills all of it."""
        script = {
            "reply": "Once upon a time there was a bookshop by the sea.",
            "chunks": 8,
            "chunk_delay_s": 0.05,
            "provider": "Azure",
            "tokens": {"prompt": 5_000, "completion": 900},
        }
        with at(when) as headers, spendwatch.tags(team="support", agent="helpdesk", feature="chat"):
            stream = self._clients["helpdesk"].chat.completions.create(
                model=THINKER,
                messages=[{"role": "user", "content": "Tell me a story."}],
                stream=True,
                extra_body={"script": script},
                extra_headers=headers,
            )
            next(iter(stream))
            stream.close()

    def _queue(self, model: str, script: dict[str, Any]) -> None:
        base = self._openrouter_url.removesuffix("/api/v1")
        httpx2.post(f"{base}/_script", json={"model": model, "script": script}).raise_for_status()
