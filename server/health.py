"""/healthz: this process answers. /readyz: what it needs answers too (database, migrations, ClickHouse, broker).

Both are answered before Django looks at the host name or redirects to https, since a probe speaks plain HTTP to an
address. A failing part is named with a reason that holds no secret. Never here: the health of workers and beat, which
keep a heartbeat file (server.celery).
"""

import logging
from collections.abc import Callable

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from kombu import Connection as BrokerConnection

from ledger.clickhouse import connection
from spendwatch.errors import SpendwatchError

log = logging.getLogger("spendwatch.health")


def database() -> str | None:
    """None, or why the database can't be used."""
    try:
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        return f"the database does not answer ({type(error).__name__})"
    return None


def migrations() -> str | None:
    """None, or how many database migrations are missing."""
    try:
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return f"the database does not answer ({type(error).__name__})"
    return f"{len(missing)} database migrations are missing; run manage.py prepare" if missing else None


def clickhouse() -> str | None:
    """None, or why ClickHouse can't be used."""
    try:
        connection("server.health").query("ping", "SELECT 1 FROM llm_calls LIMIT 0")
    except SpendwatchError as error:
        log.warning("ClickHouse: %s", error)
        return "ClickHouse does not answer or has no tables"
    return None


def broker() -> str | None:
    """None, or why the broker can't be used."""
    options = getattr(settings, "CELERY_BROKER_TRANSPORT_OPTIONS", {})
    try:
        with BrokerConnection(settings.CELERY_BROKER_URL, connect_timeout=2, transport_options=options) as link:
            link.ensure_connection(max_retries=1, interval_start=0, timeout=2)
    except Exception as error:  # noqa: BLE001  # each transport has exceptions of its own
        log.warning("broker: %s", error)
        return f"the broker does not answer ({type(error).__name__})"
    return None


Check = Callable[[], str | None]
"""Returns None when its part is well, else what is wrong and what to do."""

PARTS: dict[str, Check] = {
    "database": database,
    "migrations": migrations,
    "clickhouse": clickhouse,
    "broker": broker,
}
"""Name of a part -> its check."""


def failures() -> dict[str, str]:
    """The parts that are not well, each with its reason; empty when the service is ready."""
    reasons = {name: check() for name, check in PARTS.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


class HealthMiddleware:
    """Answers the two addresses and passes everything else on."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info == "/healthz":
            return HttpResponse("ok\n", content_type="text/plain")
        if request.path_info == "/readyz":
            wrong = failures()
            parts = {name: wrong.get(name, "ok") for name in PARTS}
            return JsonResponse({"ready": not wrong, "parts": parts}, status=503 if wrong else 200)
        return self._get_response(request)
