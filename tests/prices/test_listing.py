"""The price that an observer puts on a call is the one that valuing it gives, to the last digit."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendwatch.prices import Lister, packaged
from spendwatch.prices.value import listed
from tests.prices.conftest import make_call

START = datetime(2025, 1, 1, tzinfo=UTC)
LISTER = Lister(packaged())
MODELS = [
    ("openai", "gpt-4o-mini"), ("openai", "gpt-5-mini"), ("openai", "gpt-4o-audio-preview"), ("openai", "nobody"),
    ("anthropic", "claude-sonnet-4-5"), ("gcp.gemini", "gemini-2.5-pro"), ("deepseek", "deepseek-chat"),
    ("openrouter", "openai/gpt-4o:free"), ("perplexity", "sonar"), ("127.0.0.1", "gpt-4o-mini"),
]  # fmt: skip
COUNT = st.one_of(st.none(), st.integers(0, 500_000))
COUNTS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "cache_write_1h_input_tokens", "reasoning_output_tokens",
)  # fmt: skip


@given(
    st.sampled_from(MODELS),
    st.sampled_from([None, "default", "flex", "priority", "batch"]),
    st.sampled_from([None, 200, 429]),
    st.fixed_dictionaries(dict.fromkeys(COUNTS, COUNT)),
    st.sampled_from([None, 0, 900]),
    st.integers(0, 700 * 24),
)
def test_a_call_is_listed_at_what_valuing_it_gives(
    model: tuple[str, str], tier: str | None, status: int | None, counts: dict[str, int], audio: int | None, hours: int
) -> None:
    made = make_call(
        model[1], model[0], service_tier=tier, http_status=status, at=START + timedelta(hours=hours),
        server_address="127.0.0.1", wire_format="openai_chat", input_audio_tokens=audio, **counts,
    )  # fmt: skip
    for _ in range(2):
        assert LISTER.listed(made) == listed(made, packaged())


@pytest.mark.parametrize("attributes", [{"web_searches": "3"}, {}])
def test_what_is_billed_beside_tokens_is_listed_too(attributes: dict[str, str]) -> None:
    made = make_call("gpt-4o-mini", input_tokens=10, output_tokens=5, attributes=attributes)
    assert LISTER.listed(made) == listed(made, packaged())


def test_the_plain_case_is_exact() -> None:
    found, version = LISTER.listed(make_call("gpt-4o-mini", input_tokens=1_000_000, output_tokens=1))
    assert found == Decimal("0.1500006")
    assert version is not None
    assert version.startswith("openai@")
