"""A small OpenRouter, and an OpenAI- and Anthropic-shaped provider beside it, on loopback.

It answers as its clients script it, and remembers every generation it served, so that its replies, /generation,
/activity, /credits and /keys tell one story, except where a difference was planted on purpose. Figures are exact.
Started with `python -m tests.fakes.openrouter`, or in a test with the fixture `openrouter`. Never here: the internet.
"""

from tests.fakes.openrouter.serve import OpenRouter
from tests.fakes.openrouter.world import MANAGEMENT_KEY, Generation, Tokens, World, key_hash

__all__ = ["MANAGEMENT_KEY", "Generation", "OpenRouter", "Tokens", "World", "key_hash"]
