"""An app under test: `python -m tests.e2e.app URL --calls N --pace S`.

It has the one added line, calls OpenRouter at URL through the real SDK, half of the calls streamed, and prints the id
of each reply once it has seen its end: what it printed must be in ClickHouse, whatever happens next.
"""

import argparse
import time

import openai

import spendwatch


def main() -> None:
    """Make the calls, then end as an ordinary program does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--pace", type=float, default=0.0)
    arguments = parser.parse_args()
    spendwatch.instrument()
    client = openai.OpenAI(api_key="sk-or-v1-app", base_url=arguments.url, max_retries=0)
    for number in range(arguments.calls):
        with spendwatch.tags(team="search", agent="app", session=f"run-{number}"):
            print(call(client, streamed=number % 2 == 1), flush=True)
        time.sleep(arguments.pace)


def call(client: openai.OpenAI, *, streamed: bool) -> str:
    """One call; the id of its reply."""
    tokens = {"prompt": 10_240, "completion": 310, "cached": 8_192, "reasoning": 64}
    if not streamed:
        return client.chat.completions.create(
            model="openai/gpt-4.1-mini",
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"script": {"tokens": tokens}},
        ).id
    found = ""
    stream = client.chat.completions.create(
        model="openai/gpt-4.1-mini",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        extra_body={"script": {"tokens": tokens}},
    )
    for chunk in stream:
        found = chunk.id
    return found


if __name__ == "__main__":
    main()
