"""The packaged price files: readable as they are, equal to their source's own arithmetic, read only when needed."""

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pytest
from genai_prices import types
from genai_prices.data_snapshot import get_snapshot

from spendwatch.calls import LLMCall
from spendwatch.prices import generate, packaged, value
from spendwatch.prices.book import Meter
from spendwatch.prices.packaged import FILES, File, names, read_model

Call = Callable[..., LLMCall]
DATA = files("spendwatch.prices") / "data"
SNAPSHOT = get_snapshot()
BY_ID = {provider.id: provider for provider in SNAPSHOT.providers}
PROVIDER_NAMES = {name: semconv for semconv, name in reversed(FILES.items())}

TIMES = [
    datetime(2025, 3, 1, 12, tzinfo=UTC),
    datetime(2026, 8, 1, 2, tzinfo=UTC),
    datetime(2026, 11, 24, 17, tzinfo=UTC),
]
USAGES: list[dict[str, int]] = [
    {"input": 1000, "output": 200, "read": 0, "write": 0, "hour": 0},
    {"input": 250_000, "output": 3000, "read": 100_000, "write": 0, "hour": 0},
    {"input": 280_001, "output": 1, "read": 7, "write": 20_000, "hour": 5000},
]

CASES = [*zip(TIMES, USAGES, strict=True), (TIMES[2], USAGES[1])]


def _models(provider: types.Provider, name: str) -> Iterator[tuple[types.ModelInfo, str]]:
    """The packaged models, each with a name that means it (its id may not)."""
    text = (DATA / f"{name}.toml").read_text(encoding="utf-8")
    matches = {model["id"]: model["match"] for model in tomllib.loads(text)["model"]}
    for model in provider.models:
        candidates = [model.id, *(clause[1:] for clause in matches.get(model.id, []) if clause[0] in "=^")]
        meaning = [name for name in candidates if " & " not in name and provider.find_model(name) is model]
        if model.id in matches and meaning:
            yield model, meaning[0]


@pytest.mark.parametrize(("theirs", "name"), generate.PROVIDERS.items(), ids=lambda value: value)
def test_every_packaged_model_costs_what_its_source_says(theirs: str, name: str, call: Call) -> None:
    provider = BY_ID[theirs]
    compared = 0
    for model, model_id in _models(provider, name):
        for at, usage in CASES:
            expected = _their_price(model, provider, at, usage)
            if expected is None:
                continue
            priced = value(
                call(
                    model_id,
                    PROVIDER_NAMES.get(name, name),
                    at=at,
                    input_tokens=usage["input"],
                    output_tokens=usage["output"] if model.get_prices(at).output_mtok is not None else None,
                    cache_read_input_tokens=usage["read"],
                    cache_write_input_tokens=usage["write"],
                    cache_write_1h_input_tokens=usage["hour"],
                    operation_name="embeddings" if model.get_prices(at).output_mtok is None else "chat",
                ),
                packaged(),
            )
            assert priced.effective_cost == expected, (model_id, at, usage)
            compared += 1
    assert compared > 0


def _their_price(
    model: types.ModelInfo, provider: types.Provider, at: datetime, usage: dict[str, int]
) -> Decimal | None:
    """Their total; None where tokens have no price, or requests have one (they count those apart)."""
    prices = model.get_prices(at)
    if prices.input_mtok is None or prices.requests_kcount is not None:
        return None
    given: dict[str, Any] = {"input_tokens": usage["input"]}
    if prices.output_mtok is not None:
        given["output_tokens"] = usage["output"]
    given["cache_read_tokens"] = usage["read"]
    given["cache_write_tokens"] = usage["write"]
    if prices.cache_write_1h_mtok is not None:
        given["cache_write_1h_tokens"] = usage["hour"]
    calculation = model.calc_price(types.Usage(**given), provider, genai_request_timestamp=at)
    return calculation.total_price


@pytest.mark.parametrize("tier", ["flex", "priority", "batch"])
def test_a_service_tiers_price_is_its_sources(tier: str, call: Call) -> None:
    provider = BY_ID["openai"]
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    compared = 0
    for model in provider.models:
        variants = [v for v in model.price_variants or () if v.when == context]
        if not variants or provider.find_model(model.id) is not model:
            continue
        at = datetime(2026, 11, 24, tzinfo=UTC)
        usage = types.Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400)
        try:
            theirs = model.calc_price(usage, provider, genai_request_timestamp=at, price_context=context)
        except ValueError:
            continue
        ours = value(
            call(
                model.id,
                at=at,
                input_tokens=1000,
                output_tokens=100,
                cache_read_input_tokens=400,
                service_tier=tier,
            ),
            packaged(),
        )
        assert ours.effective_cost == theirs.total_price, model.id
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("name", sorted(names()))
def test_a_file_read_whole_gives_the_models_that_reading_it_piecewise_gives(name: str) -> None:
    text = (DATA / f"{name}.toml").read_text(encoding="utf-8")
    whole = tomllib.loads(text, parse_float=Decimal)
    piecewise = File(text)
    assert piecewise.version == f"{whole['provider']}@{whole['version']}"
    assert [match for match, _ in piecewise._tables] == [table["match"] for table in whole["model"]]
    for (_, piece), table in zip(piecewise._tables, whole["model"], strict=True):
        parsed = tomllib.loads(piece, parse_float=Decimal)
        assert read_model(parsed, "v") == read_model(table, "v")


def test_the_files_are_what_generating_them_gives(tmp_path: Any) -> None:
    for theirs, name in generate.PROVIDERS.items():
        written = (DATA / f"{name}.toml").read_text(encoding="utf-8")
        assert generate._body(generate.render(BY_ID[theirs], name)) == generate._body(written), name


@pytest.mark.parametrize(
    ("provider", "model", "same_as"),
    [
        ("openai", "GPT-5-mini", "gpt-5-mini"),
        ("openai", "gpt-5-mini-20250807", "gpt-5-mini"),
        ("azure.ai.openai", "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
    ],
)
def test_a_model_is_found_by_the_names_it_goes_by(provider: str, model: str, same_as: str) -> None:
    found = packaged().find(provider, model, datetime(2026, 11, 24, tzinfo=UTC))
    assert found is not None
    assert found.name == same_as


@pytest.mark.parametrize(
    ("model", "foundation"),
    [
        ("us.amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0"),
        ("us.meta.llama3-3-70b-instruct-v1:0", "meta.llama3-3-70b-instruct-v1:0"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-text-express-v1", "amazon.titan-text-express-v1"),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
         "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ],
)  # fmt: skip
def test_bedrocks_profiles_and_arns_have_their_models_prices(model: str, foundation: str) -> None:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    found, same = packaged().find("aws.bedrock", model, at), packaged().find("aws.bedrock", foundation, at)
    assert found is not None
    assert found == same


def test_bedrocks_global_profile_has_a_price_of_its_own_and_an_applications_none() -> None:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    regional = packaged().find("aws.bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", at)
    worldwide = packaged().find("aws.bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", at)
    assert regional is not None
    assert worldwide is not None
    assert worldwide.rates[0].prices[Meter.INPUT] < regional.rates[0].prices[Meter.INPUT]
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/otnfa2ysixqd"
    assert packaged().find("aws.bedrock", profile, at) is None


@pytest.mark.parametrize("provider", ["no-such-provider", "../prices/data/openai", "127.0.0.1:4100", ""])
def test_a_provider_without_a_file_has_no_prices(provider: str) -> None:
    assert packaged().find(provider, "gpt-5-mini", datetime(2026, 11, 24, tzinfo=UTC)) is None


def test_importing_prices_reads_no_file_and_no_pricing_library() -> None:
    code = (
        "import sys, spendwatch.prices as p; from spendwatch.prices import packaged as _; p.packaged();"
        "mods=[m for m in sys.modules if m.split('.')[0] in ('genai_prices','pydantic','django')];"
        "import spendwatch.prices.packaged as q;"
        "print(mods, sys.modules['spendwatch.prices.packaged']._read.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 0"
