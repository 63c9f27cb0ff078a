"""The environment and what it makes of the settings."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core import checks
from django.test import Client

from server.checks import addresses_agree, known_database, reachable_from_outside, secret_from_environment
from server.env import Env
from server.roles import ROLES
from server.schedule import BEAT_SCHEDULE
from tests.server.processes import ROOT


def env(folder: Path, **values: Any) -> Env:
    return Env(data_dir=folder, **values)


def test_production_settings_pass_the_deployment_checks(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={
            "PATH": "",
            "SPENDWATCH_DATA_DIR": str(tmp_path),
            "SPENDWATCH_HTTPS": "true",
            "SPENDWATCH_BIND": "0.0.0.0",
            "SPENDWATCH_PUBLIC_URL": "https://spend.example.com",
            "SPENDWATCH_SECRET_KEY": "k" * 20 + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG-_",
            "SPENDWATCH_DATABASE_URL": "postgresql://u:p@db.example.com/spendwatch",
            "SPENDWATCH_CLICKHOUSE": "https://u:p@ch.example.com/spendwatch",
            "SPENDWATCH_BROKER_URL": "redis://redis.example.com/0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "no issues" in found.stdout


def test_settings_survive_the_way_into_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = env(tmp_path, web_port=8123, allowed_hosts=("a.example.com", "b.example.com"), https=True)
    for name, value in made.as_environment().items():
        monkeypatch.setenv(name, value)
    assert Env() == made


def test_replacing_a_value_keeps_nothing_derived_from_the_old_one(tmp_path: Path) -> None:
    made = env(tmp_path, store_port=1111)
    assert ":1111/" in made.clickhouse_dsn
    assert ":2222/" in made.with_values(store_port=2222).clickhouse_dsn


def test_addresses_for_people_name_a_host_that_can_be_reached(tmp_path: Path) -> None:
    assert env(tmp_path, bind="0.0.0.0", web_port=8000).base_url == "http://127.0.0.1:8000"
    assert env(tmp_path, bind="::", ingest_port=4318).ingest_url == "http://[::1]:4318"
    assert env(tmp_path, public_url="https://spend.example.com/").base_url == "https://spend.example.com"


def test_a_deep_data_folder_gets_a_short_socket(tmp_path: Path) -> None:
    deep = env(tmp_path / ("x" * 120)).valkey_socket
    assert len(str(deep)) < 100
    assert deep != env(tmp_path / ("y" * 120)).valkey_socket


@pytest.mark.parametrize(
    ("check", "values", "expected"),
    [
        (reachable_from_outside, {}, []),
        (reachable_from_outside, {"bind": "0.0.0.0"}, ["spendwatch.W001", "spendwatch.W002"]),
        (reachable_from_outside, {"bind": "0.0.0.0", "https": True, "public_url": "https://a.example.com"}, []),
        (addresses_agree, {"https": True, "public_url": "http://a.example.com"}, ["spendwatch.E001"]),
        (addresses_agree, {"https": True, "public_url": "https://a.example.com"}, []),
        (secret_from_environment, {"database_url": "postgresql://db/x"}, ["spendwatch.W003"]),
        (secret_from_environment, {"database_url": "postgresql://db/x", "secret_key": "k" * 40}, []),
    ],
)
def test_each_fault_of_the_set_up_has_an_id_and_a_hint(
    tmp_path: Path,
    settings: Any,
    check: Callable[[], list[checks.CheckMessage]],
    values: dict[str, Any],
    expected: list[str],
) -> None:
    settings.SPENDWATCH = env(tmp_path, **values)
    found = check()
    assert [message.id for message in found] == expected
    assert all(message.hint for message in found)


def test_an_untested_database_is_named(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_database() == []
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.oracle")
    assert [message.id for message in known_database()] == ["spendwatch.W004"]


def test_each_scheduled_task_exists() -> None:
    from server.celery import app

    app.loader.import_default_modules()
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} <= set(app.tasks)


def test_the_roles_grow_from_seeing_to_everything(db: None) -> None:
    held = {
        name: set(Group.objects.get(name=name).permissions.values_list("content_type__app_label", "codename"))
        for name in ROLES
    }
    assert held["viewer"] < held["finance"] < held["owner"]
    assert held["viewer"] < held["platform"] < held["owner"]
    assert all(codename.startswith("view_") for _, codename in held["viewer"])
    assert ("auth", "add_user") in held["owner"]
    assert not any(app == "auth" for app, _ in held["platform"])
    assert not any(codename.startswith("delete_") for _, codename in held["finance"])
    ours = Permission.objects.filter(content_type__app_label__startswith="spendwatch_")
    assert set(ours.values_list("content_type__app_label", "codename")) <= held["owner"]


@pytest.mark.parametrize("role", list(ROLES))
def test_each_role_sees_the_entries_it_may_use(client_of: Callable[[str], Client], role: str) -> None:
    groups = client_of(role).get("/admin/password_change/").context["sidebar_navigation"]
    titles = {item["title"] for group in groups for item in group["items"]}
    assert {"Start", "Calls", "Statements", "Variances", "Budgets", "Incidents", "Tokens"} <= titles
    assert ("Users" in titles) == (role == "owner")
    assert ("Schedule" in titles) == (role in ("owner", "platform"))
