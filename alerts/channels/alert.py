"""What is told, free of any channel: the words and figures of one message about an incident.

Pure: an incident's facts in, an Alert out. Every channel renders the same Alert its own way. Never here: markup,
network, the database's queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from spendwatch import money


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message, in plain text.

    headline: short. text: one sentence that stands alone (a phone's notification). facts: label and value; code: the
    labels whose values are names a machine gave. notes: small print. times: notes that are a moment, label and time.
    key: what finds the message again.
    """

    headline: str
    text: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    times: tuple[tuple[str, datetime], ...]
    url: str
    incident: str
    key: str
    code: frozenset[str] = frozenset({"Agent", "Service", "Tool", "Session", "Model", "Scope"})


def usd(text: str | Decimal | None) -> str:
    """Dollars as people read them: cents, or four digits below a dollar, with thousands set apart."""
    amount = money.parse(text)
    if amount is None:
        return "unknown"
    return f"{amount:,.2f} USD" if abs(amount) >= 1 or amount == 0 else f"{amount:.4f} USD"


def describe(
    kind: str, what: str, state: str, title: str, facts: Mapping[str, Any], *, url: str, incident: str, key: str
) -> Alert:
    """The Alert for one occasion (`what`, as in Delivery) of an incident, from facts as kept in its evidence.

    what "now" describes how things stand, for a message that is updated in place.
    """
    alert = _budget(facts) if kind == "budget" else _loop(what, facts)
    headline, text, rows, notes, times = alert
    if state not in ("", "open") and what == "now":
        notes = (*notes, f"State: {state}")
        if state.startswith("resolved"):
            headline, text = f"Resolved: {headline}", f"Resolved: {text}"
    return Alert(
        headline=headline or title, text=text, facts=rows, notes=notes, times=times, url=url, incident=incident, key=key
    )


_Parts = tuple[str, str, tuple[tuple[str, str], ...], tuple[str, ...], tuple[tuple[str, datetime], ...]]


def _budget(facts: Mapping[str, Any]) -> _Parts:
    headline = f"Budget {facts['budget']} passed {facts['threshold']} %"
    text = f"{headline}: {usd(facts['spent'])} of {usd(facts['amount'])} ({facts['percent']} %) {facts['period']}."
    rows = (
        ("Spent", f"{usd(facts['spent'])} ({facts['percent']} %)"),
        ("Budget", f"{usd(facts['amount'])} {facts['period']}"),
        ("Scope", str(facts["scope"])),
    )
    notes: tuple[str, ...] = ()
    if facts.get("unpriced_calls"):
        notes = (f"Calls without a price, not in this figure: {facts['unpriced_calls']}",)
    return headline, text, rows, notes, (("Spend as of", _time(facts["as_of"])),)


def _loop(what: str, facts: Mapping[str, Any]) -> _Parts:
    agent = str(facts.get("agent") or facts.get("service") or "unnamed agent")
    headline = f"Runaway loop: {agent}"
    again = "the same message without a tool call"
    if facts["rule"] == "repeated_action":
        tool = facts.get("tool")
        again = f"{tool} with the same result" if tool else "the same action with the same result"
        if facts.get("period", 1) > 1:
            again = (
                f"a cycle of {facts['period']} actions ({tool})" if tool else f"a cycle of {facts['period']} actions"
            )
    spent = usd(facts["cost"])
    text = f"{headline}: {again}, {facts['repeats']} times; {spent} so far."
    if what.startswith("resolved"):
        headline, text = (
            f"Stopped: {agent}",
            f"The loop of {agent} has stopped after {facts['calls']} calls and {spent}.",
        )
    elif what.startswith("opened:") and what != "opened:1":
        headline, text = f"Runaway loop is back: {agent}", f"Back again: {text}"
    rows = [("Agent", agent), ("Repeats", f"{facts['repeats']} times: {again}"), ("Dollars so far", spent)]
    if facts.get("usd_an_hour"):
        rows.append(("Dollars an hour", usd(facts["usd_an_hour"])))
    rows.append(("Calls", str(facts["calls"])))
    rows += [
        (label, str(facts[name])) for label, name in (("Service", "service"), ("Model", "model")) if facts.get(name)
    ]
    if facts.get("sessions", 1) > 1:
        rows.append(("Sessions", str(facts["sessions"])))
    elif facts.get("session"):
        rows.append(("Session", str(facts["session"])))
    notes: tuple[str, ...] = ()
    if facts.get("unpriced"):
        notes = (f"Calls without a price, not in the dollars: {facts['unpriced']}",)
    times = (("Since", _time(facts["first_at"])), ("Last call", _time(facts["last_at"])))
    return headline, text, tuple(rows), notes, times


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
