"""OpenRouter's documents are read exactly, or refused whole."""

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from collectors.openrouter.read import (
    check_models,
    read_activity,
    read_credits,
    read_generation,
    read_keys,
)
from spendwatch import money
from spendwatch.errors import ReadError

DOCUMENTS = Path(__file__).parent / "documents"


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    assert is_dataclass(value)
    assert not isinstance(value, type)
    return {
        name: money.text(item) if isinstance(item, Decimal) else str(item) if isinstance(item, date) else item
        for name, item in asdict(value).items()
    }


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("activity", read_activity),
        ("credits", read_credits),
        ("keys", read_keys),
        ("generation", read_generation),
        ("generation_byok", read_generation),
    ],
)
def test_a_document_is_read_to_the_last_digit(name: str, read: Callable[[str], Any]) -> None:
    document = (DOCUMENTS / f"{name}.json").read_text()
    assert plain(read(document)) == json.loads((DOCUMENTS / f"{name}.expected.json").read_text())


def test_what_a_key_of_ones_own_served_costs_the_fee_and_the_provider() -> None:
    assert read_generation((DOCUMENTS / "generation_byok.json").read_text()).cost == Decimal("0.0196875")
    # Without one, the upstream figure repeats the usage and is not owed on top.
    assert read_generation((DOCUMENTS / "generation.json").read_text()).cost == Decimal("0.0021344")


def test_a_list_of_models_is_counted_and_one_without_names_is_refused() -> None:
    assert check_models('{"data": [{"id": "a/b", "canonical_slug": "a/b-2026"}, {"id": "c/d"}]}') == 2
    with pytest.raises(ReadError, match="id can't be read"):
        check_models('{"data": [{"name": "A"}]}')


ROW = '{"date":"2026-11-20","model":"m","usage":1,"requests":1,"prompt_tokens":1,"completion_tokens":1}'


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("<html>", "expected JSON"),
        ("[]", 'expected an object with "data"'),
        ('{"data": {}}', "expected a list"),
        (f'{{"data": [{ROW.replace("2026-11-20", "yesterday")}]}}', "date can't be read, found 'yesterday'"),
        (f'{{"data": [{ROW.replace(chr(34) + "usage" + chr(34) + ":1", chr(34) + "usage" + chr(34) + ":null")}]}}',
         "usage can't be read, found None"),
        (f'{{"data": [{ROW.replace("requests" + chr(34) + ":1", "requests" + chr(34) + ":-1")}]}}', "requests"),
        (f'{{"data": [{ROW}, 3]}}', "expected a list of objects"),
    ],
)  # fmt: skip
def test_a_document_without_what_it_promises_is_refused_with_what_was_found(document: str, says: str) -> None:
    with pytest.raises(ReadError) as caught:
        read_activity(document)
    assert says in str(caught.value)
