"""The doctor: looks at every part of an installation and says what is wrong and what to do.

A Finding is good, a warning (works, but look at it) or bad (something does not work). Invariant: each finding that is
not good says what to do; none holds a secret. Never here: repairs.
"""

import http.client
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.db import DatabaseError
from django.utils import timezone

from ledger.clickhouse import connection
from server import formats, health
from server.env import Env
from spendwatch.calls import Window
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Dsn
from spendwatch.errors import SpendwatchError

GIB = 1024**3
LITTLE_SPACE = 2 * GIB
CALLER = "server.doctor"
ASKED = frozenset({"openai_chat", "openai_completions"})
"""Wire formats whose streams state their usage when they are asked for it, and only then."""


class Grade(StrEnum):
    """How a part is."""

    GOOD = "ok"
    WARNING = "look"
    BAD = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one part. advice: what to do, "" when nothing has to be done."""

    grade: Grade
    part: str
    text: str
    advice: str = ""


def examine(now: datetime | None = None) -> Iterator[Finding]:
    """Look at everything, one part after the other; a part that fails does not hide the rest."""
    env: Env = settings.SPENDWATCH
    now = now or timezone.now()
    yield _settings(env)
    yield from _system_checks()
    yield _data_folder(env)
    database = _part("database", health.database, _database_place(env), "Start it, or correct SPENDWATCH_DATABASE_URL.")
    yield database
    if database.grade is Grade.GOOD:
        yield _part("migrations", health.migrations, "every one is applied", "Run `python manage.py prepare`.")
        yield from _people()
    yield _part(
        "broker",
        health.broker,
        "the bundled Valkey" if env.embedded_broker else f"{urlsplit(env.celery_broker_url).hostname}",
        "Start the service (`python manage.py up`), or correct SPENDWATCH_BROKER_URL.",
    )
    yield _ingest(env)
    yield from _calls(env, now)


def _settings(env: Env) -> Finding:
    chosen = sorted(f"SPENDWATCH_{name.upper()}" for name in env.model_fields_set)
    return Finding(Grade.GOOD, "settings", f"set: {', '.join(chosen)}" if chosen else "nothing is set: all defaults")


def _system_checks() -> Iterator[Finding]:
    for message in checks.run_checks(include_deployment_checks=settings.SPENDWATCH.https):
        if message.is_silenced():
            continue
        grade = Grade.BAD if message.is_serious() else Grade.WARNING
        yield Finding(grade, str(message.id or "check"), message.msg, message.hint or "")


def _data_folder(env: Env) -> Finding:
    free = shutil.disk_usage(env.data_dir).free
    text = f"{env.data_dir}, {free / GIB:.1f} GiB free"
    if free < LITTLE_SPACE:
        return Finding(Grade.WARNING, "data folder", text, "Make room: ClickHouse stops taking calls on a full disk.")
    return Finding(Grade.GOOD, "data folder", text)


def _database_place(env: Env) -> str:
    if not env.database_url:
        return f"SQLite, {env.data_dir / 'spendwatch.sqlite3'}"
    parts = urlsplit(env.database_url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


def _part(name: str, check: health.Check, good: str, advice: str) -> Finding:
    reason = check()
    return Finding(Grade.GOOD, name, good) if reason is None else Finding(Grade.BAD, name, reason, advice)


def _people() -> Iterator[Finding]:
    users = get_user_model()._default_manager.filter(is_active=True, is_staff=True).count()
    if users:
        yield Finding(Grade.GOOD, "people", f"{users} may log in")
    else:
        yield Finding(Grade.BAD, "people", "nobody may log in", "Run `python manage.py createsuperuser`.")
    try:
        tokens = apps.get_model("spendwatch_collectors", "IngestToken")._default_manager.filter(revoked_at=None).count()
    except DatabaseError:
        return  # the finding about migrations says it
    if tokens:
        yield Finding(Grade.GOOD, "tokens", f"{tokens} may send calls")
    else:
        yield Finding(Grade.BAD, "tokens", "no app may send calls", "Make a token in the admin: Set-up, Tokens.")


def _ingest(env: Env) -> Finding:
    link = http.client.HTTPConnection(env.local_host, env.ingest_port, timeout=5)
    try:
        link.request("GET", "/readyz")
        reply = link.getresponse()
        body = reply.read(300).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return Finding(
            Grade.BAD,
            "ingest",
            f"no answer at {env.ingest_url} ({error})",
            "Start the service (`python manage.py up`), or set SPENDWATCH_INGEST_PORT to where it listens.",
        )
    finally:
        link.close()
    if reply.status != 200:
        return Finding(
            Grade.BAD,
            "ingest",
            f"{env.ingest_url} answers {reply.status}: {body}",
            "See the log of the ingest process.",
        )
    return Finding(Grade.GOOD, "ingest", f"{env.ingest_url}/v1/traces")


def _calls(env: Env, now: datetime) -> Iterator[Finding]:
    try:
        ch = connection(CALLER)
        week = Window(now - timedelta(days=7), now)
        newest = queries.last_received(ch)
        spent = queries.spend(ch, {}, week)
        unpriced = queries.spend_by(ch, ["provider_name", "request_model"], {"cost_basis": ["unpriced"]}, week, limit=5)
        uncounted = queries.uncounted_streams(ch, week)
    except SpendwatchError as error:
        yield Finding(Grade.BAD, "ClickHouse", str(error), "Then run the doctor again.")
        return
    yield Finding(Grade.GOOD, "ClickHouse", Dsn.parse(settings.SPENDWATCH_CLICKHOUSE_DSN).place)
    if newest is None:
        yield Finding(
            Grade.WARNING,
            "calls",
            "none has arrived yet",
            f"In your app: import spendwatch; spendwatch.instrument(), with SPENDWATCH_ENDPOINT={env.ingest_url} and "
            "SPENDWATCH_TOKEN.",
        )
        return
    yield Finding(
        Grade.GOOD,
        "calls",
        f"{formats.count(spent.calls)} in the last 7 days, {formats.usd(spent.cost)}; "
        f"the newest arrived {formats.ago(newest, now)}",
    )
    if unpriced:
        names = ", ".join(
            f"{row.key[1] or '(no model)'} at {row.key[0]} ({formats.count(row.spend.calls)} calls)" for row in unpriced
        )
        yield Finding(
            Grade.WARNING,
            "unpriced",
            f"{formats.count(spent.unpriced_calls)} calls of the last 7 days have no price, the most: {names}",
            "They are in no sum of spend. Where the reply should have told its usage, see their pages under Calls.",
        )
    yield from _streams(uncounted)


def _streams(uncounted: Sequence[queries.Uncounted]) -> Iterator[Finding]:
    """Streams that ended without usage, apart by whether it can be asked for."""
    for asks, advice in (
        (
            True,
            "In the app: instrument(request_stream_usage=True), which asks for the usage and hides the answer, and a "
            'name in hosts for a server that is not known to take the question (hosts={"10.0.0.7:8000": "vllm"}). Or '
            'ask in each request: stream_options={"include_usage": True}.',
        ),
        (
            False,
            "Their replies end without a usage, and none can be asked for: have the provider's statement say what they "
            "cost, or call without streaming.",
        ),
    ):
        some = [one for one in uncounted if (one.wire_format in ASKED) is asks]
        if some:
            most = ", ".join(
                f"{one.request_model or '(no model)'} at {one.provider_name} ({formats.count(one.calls)})"
                for one in some[:5]
            )
            calls = formats.count(sum(one.calls for one in some))
            yield Finding(
                Grade.WARNING, "streams", f"{calls} of the last 7 days' streams told no usage, the most: {most}", advice
            )
