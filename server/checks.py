"""System checks: each fault of the set-up has an id and a hint. `manage.py check` and `manage.py doctor` show them.

Never here: anything that needs the network; that is `manage.py doctor`.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from server.env import Env

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@register(Tags.security)
def reachable_from_outside(**_: Any) -> list[CheckMessage]:
    """The service listens beyond this machine: is the rest of the set-up made for that?"""
    env: Env = settings.SPENDWATCH
    found: list[CheckMessage] = []
    if env.bind in LOOPBACK:
        return found
    if not env.https:
        found.append(
            Warning(
                f"SPENDWATCH_BIND is {env.bind}, but SPENDWATCH_HTTPS is off: passwords and tokens cross the network "
                "in the clear.",
                hint="Put a TLS proxy in front that sets X-Forwarded-Proto, and set SPENDWATCH_HTTPS=true.",
                id="spendwatch.W001",
            )
        )
    if env.public_url is None:
        found.append(
            Warning(
                f"SPENDWATCH_BIND is {env.bind}, but SPENDWATCH_PUBLIC_URL is not set: links in messages would point "
                "to this machine only.",
                hint="Set SPENDWATCH_PUBLIC_URL to the address people open, e.g. https://spend.example.com.",
                id="spendwatch.W002",
            )
        )
    return found


@register(Tags.security)
def addresses_agree(**_: Any) -> list[CheckMessage]:
    """https is promised: the public address must say so too, or no form could be sent."""
    env: Env = settings.SPENDWATCH
    if env.https and env.public_url and not env.public_url.startswith("https://"):
        return [
            Error(
                f"SPENDWATCH_HTTPS is on, but SPENDWATCH_PUBLIC_URL is {env.public_url}.",
                hint="Write it with https://, or turn SPENDWATCH_HTTPS off.",
                id="spendwatch.E001",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def secret_from_environment(**_: Any) -> list[CheckMessage]:
    """Several machines share one database: they must share one secret key, which a data folder can't give them."""
    env: Env = settings.SPENDWATCH
    if env.database_url and env.secret_key is None:
        return [
            Warning(
                "SPENDWATCH_DATABASE_URL is set, but SPENDWATCH_SECRET_KEY is not: the key is kept in this machine's "
                "data folder, so a second machine can't read the encrypted columns.",
                hint="Set SPENDWATCH_SECRET_KEY (64 random characters) to the same value everywhere; this machine's is "
                f"in {env.data_dir / 'secrets' / 'secret_key'}.",
                id="spendwatch.W003",
            )
        ]
    return []


@register(Tags.database)
def known_database(**_: Any) -> list[CheckMessage]:
    """Only SQLite and PostgreSQL are tested."""
    engine = settings.DATABASES["default"]["ENGINE"]
    if engine.rpartition(".")[2] not in ("sqlite3", "postgresql"):
        return [
            Warning(
                f"SPENDWATCH_DATABASE_URL names {engine}, which is not tested.",
                hint="Use postgresql://user:password@host:5432/name, or leave it out for SQLite.",
                id="spendwatch.W004",
            )
        ]
    return []
