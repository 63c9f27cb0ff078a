"""The state machine of incidents: open -> acknowledged or snoozed -> resolved, and re-opened.

Every function is one transaction that holds the incident's row, checks where it stands, changes it and writes an
IncidentEvent; messages it leads to are written in the same transaction (outbox). Calling one twice, or in two workers
at once, has the effect of calling it once. Never here: judging spend, sending.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import F, Max, QuerySet

from alerts.models import Budget, Channel, Crossing, Delivery, Incident, IncidentEvent, IncidentKind, IncidentState
from alerts.rules import loops as loops_rule
from alerts.rules.budget import Breach, Period
from spendwatch import money

SAME_EPISODE = timedelta(hours=24)
"""A loop that comes back within this time re-opens its incident; later it is a new one, in a thread of its own."""


def breached(budget: Budget, breach: Breach, more: dict[str, Any], now: datetime) -> Incident:
    """Note that a budget's thresholds are crossed, and have the tightest new one told.

    more: further evidence. A jump over several thresholds is one message; the lower ones are marked as covered.
    What was noted once for this window and amount is never told again, whatever the spend does afterwards.
    """
    with transaction.atomic():
        incident, created = _budget_incident(budget, breach, now)
        evidence = {
            **more,
            "budget": budget.name,
            "amount": money.text(breach.amount),
            "spent": money.text(breach.spent),
            "percent": money.text(breach.percent.quantize(Decimal("0.1"), ROUND_DOWN)),
            "window_start": breach.window.start.isoformat(),
            "window_end": breach.window.end.isoformat(),
            "as_of": now.isoformat(),
        }
        known = set(incident.crossings.filter(amount=breach.amount).values_list("threshold", flat=True))
        new = [threshold for threshold in breach.crossed if threshold not in known]
        tell = breach.tightest if new and breach.tightest not in known else None
        for threshold in new:
            Crossing.objects.create(
                incident=incident,
                threshold=threshold,
                amount=breach.amount,
                at=now,
                spent=money.quantize(breach.spent),
                covered_by=None if threshold == tell else (tell or breach.tightest),
            )
        evidence["threshold"] = tell or incident.evidence.get("threshold", breach.tightest)
        _learn(incident, evidence)
        if tell is None:
            return incident
        incident.title = f"Budget {budget.name} passed {tell} %"
        incident.save(update_fields=["title"])
        covered = ", ".join(f"{threshold} %" for threshold in new if threshold != tell)
        why = f"{tell} % of {evidence['amount']} USD; spent {evidence['spent']} USD"
        _event(
            incident, "opened" if created else "threshold", now, why=why + (f"; covers {covered}" if covered else "")
        )
        if incident.is_over:
            _reopen(incident, now, why=f"passed {tell} %")
        if budget.channel is not None:
            _say(incident, [budget.channel], f"threshold:{tell}@{evidence['amount']}", evidence, now)
        return incident


def calmed(budget: Budget, spent: Decimal, now: datetime) -> None:
    """End the episode of a rolling budget whose spend has fallen well below its lowest threshold."""
    with transaction.atomic():
        incident = _locked(Incident.objects.filter(cause=_rolling_cause(budget), over_at=None)).last()
        if incident is None:
            return
        Incident.objects.filter(pk=incident.pk).update(over_at=now)
        _learn(incident, {**incident.evidence, "spent": money.text(spent), "as_of": now.isoformat()})
        if not incident.is_over:
            _resolve(incident, now, why=f"spend of the window is down to {money.text(spent)} USD")


def expired(now: datetime) -> None:
    """Resolve the incidents of calendar windows that have ended."""
    unresolved = Incident.objects.filter(kind=IncidentKind.BUDGET, over_at=None).exclude(cause__endswith=":rolling")
    for incident in unresolved:
        end = incident.evidence.get("window_end")
        if not end or datetime.fromisoformat(end) > now:
            continue
        with transaction.atomic():
            locked = _locked(Incident.objects.filter(pk=incident.pk, over_at=None)).first()
            if locked is None:
                continue
            Incident.objects.filter(pk=locked.pk).update(over_at=now)
            if not locked.is_over:
                _resolve(locked, now, why="the budget's period has ended")


def looping(seen: loops_rule.Sighting, now: datetime) -> Incident | None:
    """Note a loop as far as it has gone: open its incident, or bring it up to date. None when it is old news."""
    cause = loops_rule.cause(seen)
    with transaction.atomic():
        incident = _locked(Incident.objects.filter(cause=cause)).last()
        if incident is not None and incident.is_over:
            ended = incident.resolved_at or incident.opened_at
            if seen.verdict.last_at <= ended:
                return None
            if seen.verdict.last_at - ended > SAME_EPISODE:
                return _open_loop(seen, cause, incident.episode + 1, now)
            _learn(incident, loops_rule.merge(incident.evidence, seen))
            _reopen(incident, now, why="the loop goes on")
            _say(incident, _loop_channels(), f"opened:{incident.openings}", incident.evidence, now)
            return incident
        if incident is None:
            return _open_loop(seen, cause, 1, now)
        _learn(incident, loops_rule.merge(incident.evidence, seen))
        return incident


def quiet(now: datetime, after: timedelta) -> None:
    """Resolve the loops of which nothing was seen for `after`."""
    for incident in Incident.objects.filter(kind=IncidentKind.LOOP).exclude(state=IncidentState.RESOLVED):
        last_at = datetime.fromisoformat(incident.evidence["last_at"])
        if now - last_at < after:
            continue
        with transaction.atomic():
            locked = _locked(Incident.objects.filter(pk=incident.pk)).first()
            if locked is None or locked.is_over or locked.evidence["last_at"] != incident.evidence["last_at"]:
                continue
            minutes = int(after.total_seconds() // 60)
            _resolve(locked, now, why=f"no looping call for {minutes} minutes")
            threaded = Channel.objects.filter(kind="slack_bot", deliveries__incident=locked).distinct()
            _say(locked, threaded, f"resolved:{locked.openings}", locked.evidence, now)


def acknowledge(incident: Incident, user: AbstractBaseUser, now: datetime, why: str = "") -> bool:
    """Somebody takes care of it. False when there was nothing to change."""
    with transaction.atomic():
        locked = _locked(Incident.objects.filter(pk=incident.pk)).get()
        if locked.state not in (IncidentState.OPEN, IncidentState.SNOOZED):
            return False
        _turn(locked, IncidentState.ACKNOWLEDGED, "acknowledged", now, user, why)
        return True


def snooze(incident: Incident, user: AbstractBaseUser, now: datetime, until: datetime, why: str = "") -> bool:
    """Hold back its messages until then. False when it is resolved, or snoozed until then already."""
    with transaction.atomic():
        locked = _locked(Incident.objects.filter(pk=incident.pk)).get()
        if locked.is_over or locked.snoozed_until == until:
            return False
        why = f"until {until:%Y-%m-%d %H:%M} UTC" + (f"; {why}" if why else "")
        _turn(locked, IncidentState.SNOOZED, "snoozed", now, user, why, snoozed_until=until)
        return True


def resolve(incident: Incident, user: AbstractBaseUser, now: datetime, why: str = "") -> bool:
    """Somebody says it is done. False when it was resolved already."""
    with transaction.atomic():
        locked = _locked(Incident.objects.filter(pk=incident.pk)).get()
        if locked.is_over:
            return False
        _turn(locked, IncidentState.RESOLVED, "resolved", now, user, why, resolved_at=now)
        return True


def wake(now: datetime) -> None:
    """Open the incidents again whose snooze is over, so that held messages go."""
    for incident in Incident.objects.filter(state=IncidentState.SNOOZED, snoozed_until__lte=now):
        with transaction.atomic():
            locked = _locked(Incident.objects.filter(pk=incident.pk)).get()
            if locked.state == IncidentState.SNOOZED and locked.snoozed_until and locked.snoozed_until <= now:
                _turn(locked, IncidentState.OPEN, "woke", now, None, "the snooze is over")


def _budget_incident(budget: Budget, breach: Breach, now: datetime) -> tuple[Incident, bool]:
    """The incident of this window, locked; a rolling budget's is the episode that goes on, else the next one."""
    episode = 1
    if budget.period == Period.ROLLING:
        cause = _rolling_cause(budget)
        going_on = _locked(Incident.objects.filter(cause=cause, over_at=None)).last()
        if going_on is not None:
            return going_on, False
        episode = 1 + (Incident.objects.filter(cause=cause).aggregate(last=Max("episode"))["last"] or 0)
    else:
        cause = f"budget:{budget.pk}:{breach.window.start.isoformat()}"
    incident, created = Incident.objects.get_or_create(
        cause=cause,
        episode=episode,
        defaults={
            "kind": IncidentKind.BUDGET, "budget": budget, "title": f"Budget {budget.name}", "opened_at": now,
        },
    )  # fmt: skip
    return _locked(Incident.objects.filter(pk=incident.pk)).get(), created


def _rolling_cause(budget: Budget) -> str:
    return f"budget:{budget.pk}:rolling"


def _open_loop(seen: loops_rule.Sighting, cause: str, episode: int, now: datetime) -> Incident:
    evidence = loops_rule.merge({}, seen)
    incident, created = Incident.objects.get_or_create(
        cause=cause,
        episode=episode,
        defaults={
            "kind": IncidentKind.LOOP,
            "title": f"Runaway loop: {loops_rule.who(evidence)}",
            "opened_at": now,
            "evidence": evidence,
        },
    )
    if created:
        _event(incident, "opened", now, why=f"{evidence['repeats']} repeats, {evidence['cost']} USD so far")
        _say(incident, _loop_channels(), f"opened:{incident.openings}", evidence, now)
    return incident


def _loop_channels() -> Iterable[Channel]:
    return Channel.objects.filter(active=True, tells_loops=True)


def _locked(incidents: QuerySet[Incident]) -> QuerySet[Incident]:
    """Hold the rows until the transaction ends (on SQLite the whole database is held since its beginning)."""
    return incidents.select_for_update(of=("self",)).order_by("episode")


def _learn(incident: Incident, evidence: dict[str, Any]) -> None:
    """Keep new evidence. The version grows when a message would look different: not with every cent of a budget."""
    if evidence == incident.evidence:
        return
    # A rolling window moves with every look.
    small = dict.fromkeys(("as_of", "spent", "window_start", "window_end"))
    if {**evidence, **small} != {**incident.evidence, **small}:
        incident.version += 1
    incident.evidence = evidence
    incident.save(update_fields=["evidence", "version"])


def _turn(
    incident: Incident,
    state: IncidentState,
    what: str,
    now: datetime,
    user: AbstractBaseUser | None,
    why: str,
    **fields: Any,
) -> None:
    fields.setdefault("snoozed_until", None)
    Incident.objects.filter(pk=incident.pk).update(state=state, version=F("version") + 1, **fields)
    incident.refresh_from_db()
    _event(incident, what, now, user=user, why=why)


def _resolve(incident: Incident, now: datetime, why: str) -> None:
    _turn(incident, IncidentState.RESOLVED, "resolved", now, None, why, resolved_at=now)


def _reopen(incident: Incident, now: datetime, why: str) -> None:
    _turn(
        incident, IncidentState.OPEN, "reopened", now, None, why, resolved_at=None, openings=F("openings") + 1
    )  # fmt: skip


def _event(
    incident: Incident, what: str, now: datetime, *, user: AbstractBaseUser | None = None, why: str = ""
) -> None:
    who = user.get_username() if user is not None else "spendwatch"
    IncidentEvent.objects.create(
        incident=incident, at=now, what=what, user_id=user.pk if user else None, who=who, why=why
    )


def _say(incident: Incident, channels: Iterable[Channel], what: str, evidence: dict[str, Any], now: datetime) -> None:
    """Put one message per channel into the outbox; the first one of a channel begins its thread."""
    for channel in channels:
        is_root = not Delivery.objects.filter(incident=incident, channel=channel).exists()
        Delivery.objects.get_or_create(
            incident=incident,
            channel=channel,
            what=what,
            defaults={
                "is_root": is_root,
                "facts": {**evidence, "version": incident.version},
                "created_at": now,
                "next_attempt_at": now,
            },
        )
