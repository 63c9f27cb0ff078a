"""Tokens as the collector knows them: remembered, bounded, and good while the database is away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from collectors.models import IngestToken, Project
from collectors.otlp import tokens as tokens_module
from collectors.otlp.tokens import Tokens, bearer
from spendwatch.errors import OutsideError

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def secret() -> str:
    return IngestToken.issue(Project.objects.create(slug="shop", name="Shop"), "tests")[1]


@contextmanager
def database_away() -> Iterator[None]:
    """Tokens can't be looked up: their table has another name for a while."""
    table = IngestToken._meta.db_table
    with connection.schema_editor() as schema:
        schema.alter_db_table(IngestToken, table, "elsewhere")
    try:
        yield
    finally:
        with connection.schema_editor() as schema:
            schema.alter_db_table(IngestToken, "elsewhere", table)


def ask(tokens: Tokens, *secrets: str) -> list[str | None]:
    async def main() -> list[str | None]:
        return list(await asyncio.gather(*(tokens.project(secret) for secret in secrets)))

    return asyncio.run(main())


def test_a_token_names_its_project_and_others_name_none(secret: str) -> None:
    assert ask(Tokens(), secret, secret, "swt_unknown", "unknown", "") == ["shop", "shop", None, None, None]


def test_a_good_token_stays_good_while_the_database_is_away(secret: str) -> None:
    tokens = Tokens(remember_s=0)
    assert ask(tokens, secret) == ["shop"]
    with database_away():
        assert ask(tokens, secret) == ["shop"]
        with pytest.raises(OutsideError, match="Try again"):
            ask(tokens, "swt_never_seen")
    assert ask(tokens, secret, "swt_never_seen") == ["shop", None]


def test_a_token_that_was_unknown_does_not_become_good_while_the_database_is_away(secret: str) -> None:
    tokens = Tokens(remember_s=0)
    assert ask(tokens, "swt_unknown") == [None]
    with database_away(), pytest.raises(OutsideError):
        ask(tokens, "swt_unknown")


def test_unknown_tokens_are_remembered_in_bounds_and_push_out_no_good_one(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "MAX_REMEMBERED", 5)
    tokens = Tokens()
    assert ask(tokens, secret) == ["shop"]
    for number in range(50):
        assert ask(tokens, f"swt_{number}") == [None]
    assert len(tokens._known) == 5
    with database_away():
        assert ask(tokens, secret, "swt_49") == ["shop", None]


def test_a_revoked_token_keeps_the_time_of_its_first_revocation(secret: str) -> None:
    token = IngestToken.objects.get()
    token.revoke()
    first = token.revoked_at
    token.revoke()
    assert IngestToken.objects.get().revoked_at == first
    assert ask(Tokens(), secret) == [None]


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None), (b"", None), (b"Bearer", None), (b"Bearer  ", None), (b"Bearer x", "x"), (b"bearer  x ", "x"),
        (b"BEARER x", "x"), (b"Basic x", None), (b"Bearer%20x", "x"), (b"Bearer \xff", "\xff"),
    ],
)  # fmt: skip
def test_the_token_is_taken_out_of_the_header(header: bytes | None, token: str | None) -> None:
    assert bearer(header) == token
