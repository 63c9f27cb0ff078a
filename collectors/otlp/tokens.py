"""Bearer token -> project, remembered for ten seconds.

Django's ORM is asked in one thread of its own. Unknown tokens are remembered too, in a table of bounded size, so that
a misconfigured fleet does not become a query per request. While the database is away, tokens that were good lately
stay good: their spans are worth more than the seconds by which a revocation comes late.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from collectors.models import TOKEN_PREFIX, IngestToken, token_hash
from spendwatch.errors import OutsideError

log = logging.getLogger("spendwatch.collectors.otlp")

REMEMBER_S = 10.0
STALE_S = 600.0
MAX_REMEMBERED = 2000
_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Known:
    project: str | None
    checked_at: float


class Tokens:
    """The tokens that may send, as one event loop sees them."""

    def __init__(self, *, remember_s: float = REMEMBER_S) -> None:
        self._remember_s = remember_s
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[str | None]] = {}
        self._thread = ThreadPoolExecutor(1, "tokens")

    async def project(self, secret: str) -> str | None:
        """The slug of the token's project; None for an unknown or revoked one.

        Raises OutsideError when the database can't be asked and nothing is known of the token.
        """
        if not secret.startswith(TOKEN_PREFIX) or len(secret) > 200:
            return None
        # Remembered under a hash: the secrets themselves don't lie about in memory.
        key = hashlib.blake2b(secret.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        known = self._known.get(key)
        if known is not None and time.monotonic() - known.checked_at < self._remember_s:
            return known.project
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, secret))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # Shielded, because several requests wait for the one answer and each may be given up alone.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, secret: str) -> str | None:
        try:
            project = await asyncio.get_running_loop().run_in_executor(self._thread, look_up, secret)
        except DatabaseError as error:
            known = self._known.get(key)
            if known is not None and known.project is not None and time.monotonic() - known.checked_at < STALE_S:
                log.warning("the database can't be asked for a token (%s); it was good lately and stays so", error)
                return known.project
            raise OutsideError(f"expected to look up the token, found: {error}. Try again shortly.") from error
        self._known[key] = _Known(project, time.monotonic())
        self._known.move_to_end(key)
        if len(self._known) > MAX_REMEMBERED:
            # Unknown tokens cost nothing to forget; a good one is forgotten only when there are none.
            worst = next((key for key, known in self._known.items() if known.project is None), None)
            self._known.pop(worst if worst is not None else next(iter(self._known)))
        return project

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)


def look_up(secret: str) -> str | None:
    """The project of a token in the database, None when there is none. Notes once a minute that it is in use."""
    close_old_connections()
    try:
        token = IngestToken.objects.select_related("project").filter(token_hash=token_hash(secret)).first()
        if token is None or token.revoked_at is not None:
            return None
        now = timezone.now()
        if token.last_used_at is None or now - token.last_used_at > _USED_EVERY:
            try:
                IngestToken.objects.filter(pk=token.pk).update(last_used_at=now)
            except DatabaseError as error:
                log.info("could not note the use of a token: %s", error)
        return token.project.slug
    finally:
        close_old_connections()


def bearer(header: bytes | None) -> str | None:
    """The token of an Authorization header, None when there is none."""
    if header is None:
        return None
    # OTEL_EXPORTER_OTLP_HEADERS is percent-encoded by its specification, and sent undecoded by some.
    scheme, _, token = header.decode("latin-1").replace("%20", " ", 1).strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
