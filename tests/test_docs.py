"""What the README, the docs and .env.example say exists, exists."""

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
from django.core.management import get_commands

import spendwatch
from ledger.reconcile import VarianceClass
from server.env import Env

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "deploy/otel-collector/README.md",
    "docs/import.md",
    "docs/sdk.md",
    "docs/server.md",
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("*/README.md")),
)


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_every_setting_of_the_server_is_in_the_example_with_its_default() -> None:
    shown = dict(re.findall(r"^#SPENDWATCH_(\w+)=(.*)$", text(".env.example"), re.MULTILINE))
    # `supervised` is what the supervisor tells its children, not a setting.
    assert {name.lower() for name in shown} == Env.model_fields.keys() - {"supervised"}
    defaults = Env.model_construct()
    for name in ("bind", "web_port", "ingest_port", "store_port", "log_level"):
        assert shown[name.upper()] == str(getattr(defaults, name))
    assert shown["ALLOWED_HOSTS"] == ",".join(defaults.allowed_hosts)


def test_every_argument_of_instrument_is_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", text("docs/sdk.md"), re.MULTILINE))
    assert documented == set(signature(spendwatch.instrument).parameters)


def test_every_variance_class_is_documented() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+)` \| ", text("docs/server.md"), re.MULTILINE))
    assert {each.value for each in VarianceClass} <= documented


def test_every_command_named_in_the_docs_exists() -> None:
    table = text("docs/server.md").partition("## Commands")[2].partition("##")[0]
    named = {name for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)", cell)}
    assert named - {"python"} <= set(get_commands())


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", text(page))
    missing = [
        link for link in links if not link.startswith("http") and not ((ROOT / page).parent / link).resolve().exists()
    ]
    assert missing == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"make (\w+)", text("README.md"))) - {"is"} <= targets


def test_the_one_line_runs_as_the_readme_shows_it() -> None:
    [snippet] = re.findall(r"```python\n(import spendwatch\n.*?)```", text("README.md"), re.DOTALL)
    subprocess.run([sys.executable, "-c", snippet], check=True, timeout=60)
