"""Sessions: connections that belong to one client (`session_id`), with its temporary tables, database and settings.

One statement at a time; a session nobody used for its timeout is closed. Without a session id each statement takes any
connection of the pool.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from spendwatch.clickhouse.store.engine import Engine, Link
from spendwatch.clickhouse.store.errors import SESSION_IS_LOCKED, SESSION_NOT_FOUND, Refusal, refusal
from spendwatch.clickhouse.store.statement import quote

MAX_SESSIONS = 256
BUSY_WAIT_S = 0.25
"""How long a statement waits for the one before it in its session."""


@dataclass(slots=True)
class Session:
    """A client's own connection. own_settings: it has run SET, so its settings are its own affair and are put back
    after each statement that comes with others."""

    link: Link
    database: str
    timeout_s: int
    expires: float
    busy: bool = True
    own_settings: bool = False
    restore: list[str] = field(default_factory=list)

    def stand_at(self, database: str | None, settings: Mapping[str, str]) -> None:
        """Bring the session to what one request asks for, on top of what the session has set itself."""
        if not self.own_settings:
            self.link.stand_at(database or self.database, settings)
            return
        self.link.stand_at(database or self.database, {})
        if not settings:
            return
        found = self.link.run(
            "SELECT name, changed, value FROM system.settings WHERE has({names:Array(String)}, name)",
            "JSONCompactEachRow",
            {"names": "[" + ", ".join(quote(name) for name in settings) + "]"},
        )
        before = {row[0]: row[2] if row[1] else None for row in _rows(found.bytes())}
        self.link.run("SET " + ", ".join(f"{name}={quote(value)}" for name, value in settings.items()))
        for name in settings:
            value = before.get(name)
            self.restore.append(f"{name}={'DEFAULT' if value is None else quote(value)}")

    def put_back(self) -> None:
        """Undo what one request set for itself."""
        if self.restore:
            restore, self.restore = self.restore, []
            self.link.run("SET " + ", ".join(restore))

    def note_set(self) -> None:
        """Before a SET or USE of the client's own: leave only what the session itself has set."""
        self.put_back()
        self.link.stand_at(self.database, {})
        self.own_settings = True

    def note_use(self) -> None:
        """After a USE: learn where the session stands now."""
        self.database = self.link.database = (
            self.link.run("SELECT currentDatabase()", "TSVRaw").bytes().decode().strip()
        )


class Sessions:
    """The open sessions, by user and id."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._open: dict[tuple[str, str], Session] = {}

    def enter(self, user: str, session_id: str, *, timeout_s: int, check: bool, readonly: bool) -> Session:
        """The session, opened when it is new; to be left by leave(). check: it must exist already. Raises Refusal."""
        self.close_expired()
        key = (user, session_id)
        patience = time.monotonic() + BUSY_WAIT_S
        with self._free:
            # A client may send the next statement on another connection before this process has put the last one's
            # settings back: that takes a moment, a concurrent statement longer.
            while (session := self._open.get(key)) is not None and session.busy:
                if not self._free.wait(patience - time.monotonic()):
                    raise refusal(SESSION_IS_LOCKED, f"Session {session_id} is locked by a concurrent client")
            if session is not None:
                session.busy = True
                session.timeout_s = timeout_s
                return session
            if check:
                raise refusal(SESSION_NOT_FOUND, f"Session {session_id} not found")
            self._make_room()
            session = Session(self._engine.connect(readonly=readonly), self._engine.database, timeout_s, 0.0)
            self._open[key] = session
            return session

    def leave(self, session: Session) -> None:
        """The statement is over; the session waits for the next one."""
        try:
            session.put_back()
        except Refusal:
            session.link.spoiled = True
        with self._lock:
            session.expires = time.monotonic() + session.timeout_s
            session.busy = False
            self._free.notify_all()
            if session.link.spoiled:
                self._open = {key: other for key, other in self._open.items() if other is not session}
        if session.link.spoiled:
            session.link.close()

    def close_expired(self) -> None:
        """Close the sessions whose timeout is over."""
        now = time.monotonic()
        with self._lock:
            gone = [key for key, session in self._open.items() if not session.busy and session.expires < now]
            links = [self._open.pop(key).link for key in gone]
        for link in links:
            link.close()

    def close(self) -> None:
        """Close every session that is not at work."""
        with self._lock:
            links = [session.link for session in self._open.values() if not session.busy]
            self._open.clear()
        for link in links:
            link.close()

    def _make_room(self) -> None:
        """Clients that never end their sessions must not fill the memory: the one idle for longest goes first."""
        if len(self._open) < MAX_SESSIONS:
            return
        idle = [(session.expires - session.timeout_s, key) for key, session in self._open.items() if not session.busy]
        if idle:
            self._open.pop(min(idle)[1]).link.close()


def _rows(data: bytes) -> list[tuple[str, bool, str]]:
    return [tuple(json.loads(line)) for line in data.splitlines()]
