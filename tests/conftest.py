"""What every test shares: a data folder of its own, set before Django reads its settings."""

import os
import tempfile

import pytest

os.environ.setdefault("SPENDWATCH_DATA_DIR", tempfile.mkdtemp(prefix="spendwatch-test-"))

pytest_plugins: list[str] = [
    "tests.fixtures.clickhouse",
    "tests.fixtures.openrouter",
    "tests.fixtures.services",
    "tests.fixtures.store",
]


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test writes into, or is swayed by, the home folder or the OTLP settings of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
