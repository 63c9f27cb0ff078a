"""`manage.py delete_data` forgets a user or a project everywhere, and the log tells that, not whom."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from alerts.models import Budget, Incident, IncidentKind
from server.management.commands.delete_data import fingerprint
from spendwatch.calls import PricedCall, Tags
from spendwatch.clickhouse.client import Connection
from tests.clickhouse.builders import a_call

ALICE = "alice@example.org"
NOW = datetime.now(UTC)


def by(user: str, number: int, project: str = "acme") -> PricedCall:
    return a_call(
        number, started_at=NOW - timedelta(hours=5, minutes=number),
        tags=Tags(user=user, session=f"session-of-{user}", project=project),
    )  # fmt: skip


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create_user("olga", is_staff=True)


@pytest.fixture
def incident(db: None) -> Incident:
    return Incident.objects.create(
        kind=IncidentKind.LOOP, cause="loop:1", title="A loop", opened_at=NOW,
        evidence={"session": f"session-of-{ALICE}", "loops": [{"note": f"by {ALICE}", "project": "beta"}], "x": "beta"},
    )  # fmt: skip


def stored(ch: Connection) -> list[tuple[str, str]]:
    return [tuple(row) for row in ch.query("left", "SELECT user_id, project FROM llm_calls FINAL ORDER BY ALL")]


def test_a_dry_run_tells_and_changes_nothing(
    spending: Callable[..., None], clickhouse: Connection, incident: Incident, capsys: pytest.CaptureFixture[str]
) -> None:
    spending(by(ALICE, 1), by("bob", 2), rolled=True)
    call_command("delete_data", user=ALICE, dry_run=True)
    assert capsys.readouterr().out.splitlines() == [
        f"1 calls in 1 sessions, {by(ALICE, 1).call.started_at:%Y-%m-%d} to {by(ALICE, 1).call.started_at:%Y-%m-%d}",
        "1 x incident would be changed",
    ]
    assert stored(clickhouse) == [(ALICE, "acme"), ("bob", "acme")]
    incident.refresh_from_db()
    assert incident.evidence["session"] == f"session-of-{ALICE}"
    assert not LogEntry.objects.exists()


def test_a_user_is_forgotten_and_the_log_names_who_did_it_not_whom(
    spending: Callable[..., None], clickhouse: Connection, incident: Incident, owner: User,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    spending(by(ALICE, 1), by("bob", 2), by(ALICE, 3), rolled=True)
    call_command("delete_data", user=ALICE, by="olga", no_wait=True)
    assert "deleted 2 calls" in capsys.readouterr().out
    assert stored(clickhouse) == [("bob", "acme")]
    incident.refresh_from_db()
    assert incident.evidence == {
        "session": "(deleted)", "loops": [{"note": "by (deleted)", "project": "beta"}], "x": "beta"
    }  # fmt: skip
    (entry,) = LogEntry.objects.all()
    assert (entry.user, entry.object_repr) == (owner, f"user {fingerprint(ALICE)}")
    assert "2 calls" in entry.change_message
    assert ALICE not in str(vars(entry))


def test_a_project_is_forgotten_where_it_is_said_to_be_one(
    spending: Callable[..., None], clickhouse: Connection, incident: Incident, owner: User
) -> None:
    spending(by(ALICE, 1), by(ALICE, 2, "beta"), rolled=True)
    call_command("delete_data", project="beta", by="olga", no_wait=True)
    assert stored(clickhouse) == [(ALICE, "acme")]
    incident.refresh_from_db()
    assert incident.evidence["x"] == "beta"
    assert incident.evidence["loops"][0]["project"] == "(deleted)"


def test_a_setting_that_names_the_user_is_told_and_stays(
    spending: Callable[..., None], owner: User, capsys: pytest.CaptureFixture[str]
) -> None:
    spending(by(ALICE, 1))
    budget = Budget.objects.create(name="Alice", scope={"user_id": [ALICE]}, amount="5")
    call_command("delete_data", user=ALICE, by="olga", no_wait=True)
    assert f"not changed: budget {budget.pk} names it" in capsys.readouterr().out
    budget.refresh_from_db()
    assert budget.scope == {"user_id": [ALICE]}


def test_nothing_is_deleted_without_a_name_for_the_log(
    spending: Callable[..., None], clickhouse: Connection, owner: User
) -> None:
    spending(by(ALICE, 1))
    for nobody in (None, "nobody"):
        with pytest.raises(CommandError, match="expected --by"):
            call_command("delete_data", user=ALICE, by=nobody)
    with pytest.raises(CommandError, match="empty"):
        call_command("delete_data", user="", by="olga")
    assert len(stored(clickhouse)) == 1
