"""A model is compared under one name, whoever names it."""

import pytest

from ledger.matching import Names

NAMES = Names(
    {
        "openai/gpt-4.1-mini": "openai/gpt-4.1-mini-2025-04-14",
        "meta-llama/llama-3.3-70b-instruct": "meta-llama/llama-3.3-70b-instruct",
        "meta-llama/llama-3.3-70b-instruct:free": "meta-llama/llama-3.3-70b-instruct",
    }
)


@pytest.mark.parametrize(
    ("name", "permaslug", "expected"),
    [
        ("openai/gpt-4.1-mini", "", "openai/gpt-4.1-mini-2025-04-14"),
        ("openai/gpt-4.1-mini-2025-04-14", "", "openai/gpt-4.1-mini-2025-04-14"),
        ("openai/gpt-4.1-mini", "openai/gpt-4.1-mini-2025-04-14", "openai/gpt-4.1-mini-2025-04-14"),
        ("openai/gpt-4.1-mini:nitro", "", "openai/gpt-4.1-mini-2025-04-14"),
        # A variant with prices of its own is a model of its own, whether or not it has a row in /models.
        ("meta-llama/llama-3.3-70b-instruct:free", "", "meta-llama/llama-3.3-70b-instruct:free"),
        (
            "meta-llama/llama-3.3-70b-instruct:free",
            "meta-llama/llama-3.3-70b-instruct",
            "meta-llama/llama-3.3-70b-instruct:free",
        ),
        ("openai/gpt-4.1-mini:batch", "", "openai/gpt-4.1-mini-2025-04-14:batch"),
        # Not a variant: other people's namespaces have colons too.
        ("ollama/llama3:7b", "", "ollama/llama3:7b"),
        ("unknown/model", "", "unknown/model"),
    ],
)
def test_slug_variant_and_dated_id_are_one_name(name: str, permaslug: str, expected: str) -> None:
    assert NAMES.model(name, permaslug) == expected


def test_a_serving_provider_is_the_same_in_any_case() -> None:
    assert NAMES.endpoint("Amazon Bedrock ") == NAMES.endpoint("amazon bedrock")
