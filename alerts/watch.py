"""The loop detector on the server: feeds it the calls that came in, and keeps the incidents of loops up to date.

Each worker process has a watch of its own with its own memory. Two of them see the same calls and say the same; the
incident's key and the merging of evidence make that one incident. A fresh process reads back far enough to know the
loops that are going on. Never here: the rule itself, sending.
"""

import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from django.db.models import Min

from alerts import incidents
from alerts.models import Incident, IncidentKind, IncidentState
from alerts.rules.loops import Sighting, sighting
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.queries import StoredCall
from spendwatch.loops import Detector, Stream

LOOK_BACK = timedelta(minutes=20)
"""What a fresh process reads: more than a loop of slow calls needs to show itself."""
LONGEST_LOOK_BACK = timedelta(hours=6)
OVERLAP = timedelta(seconds=60)
"""Calls are stored a moment after the time they are marked as received with."""
QUIET = timedelta(minutes=10)
"""A loop of which nothing was seen for so long has stopped."""
STALE = timedelta(hours=1)
"""A loop that ended this long ago, in calls that came in late, is nobody's emergency."""
PAGE = 20_000
REMEMBERED = 200_000


class Watch:
    """A detector and how far it has read. Thread-safe: a look that finds another one at work does nothing."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Start anew, as a fresh process does."""
        self._detector = Detector()
        self._read_until: datetime | None = None
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._unnoted: dict[tuple[Stream, datetime], Sighting] = {}

    def look(self, ch: Connection, now: datetime) -> None:
        """Read what came in until `now`, note the loops that go on, and resolve those that stopped.

        Raises StoreError; what was not noted then is noted by the next look.
        """
        if not self._busy.acquire(blocking=False):
            return
        try:
            since = self._read_until - OVERLAP if self._read_until else now - self._look_back(now)
            for stored in sorted(self._read(ch, since, now), key=lambda stored: stored.call.started_at):
                self._feed(stored)
            self._read_until = now
            self._note(now)
            incidents.quiet(now, QUIET)
        finally:
            self._busy.release()

    def _look_back(self, now: datetime) -> timedelta:
        """Long enough to see the loops that are open from their beginning, so that their dollars are whole."""
        going_on = Incident.objects.filter(kind=IncidentKind.LOOP).exclude(state=IncidentState.RESOLVED)
        oldest = going_on.aggregate(oldest=Min("opened_at"))["oldest"]
        return min(LONGEST_LOOK_BACK, LOOK_BACK + (now - oldest if oldest else timedelta(0)))

    def _read(self, ch: Connection, since: datetime, until: datetime) -> list[StoredCall]:
        """The calls received in a time, all of them: a time with more than a page is halved."""
        page = queries.calls_received(ch, since, until, limit=PAGE)
        if len(page) < PAGE or until - since < timedelta(seconds=2):
            return page
        middle = since + (until - since) / 2
        return self._read(ch, since, middle) + self._read(ch, middle, until)

    def _feed(self, stored: StoredCall) -> None:
        if stored.call_id in self._seen:
            return
        self._seen[stored.call_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        call = stored.call
        self._detector.observe(call, stored.effective_cost)
        verdict = self._detector.ongoing(call)
        if verdict is not None:
            self._unnoted[verdict.stream, verdict.first_at] = sighting(verdict, call)

    def _note(self, now: datetime) -> None:
        for key, seen in list(self._unnoted.items()):
            if now - seen.verdict.last_at < STALE:
                incidents.looping(seen, now)
            del self._unnoted[key]


WATCH = Watch()
"""This process's watch."""
