"""From the detector's verdicts to an incident: which incident a loop belongs to, and what is known about it by now.

Pure. Invariant: merging the same verdict twice changes nothing, and a later, shorter look at a loop (a worker that
started again in the middle of it) never lowers what is known. Never here: detecting, the database.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from spendwatch import money
from spendwatch.calls import LLMCall
from spendwatch.loops import Verdict, an_hour

MAX_LOOPS = 50
"""Loops listed one by one in an incident; older ones are kept as a sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A verdict and whose it is."""

    verdict: Verdict
    agent: str
    service: str
    session: str
    team: str
    model: str


def sighting(verdict: Verdict, call: LLMCall) -> Sighting:
    """What a verdict says about the agent that made its last call."""
    return Sighting(
        verdict=verdict,
        agent=call.tags.agent or "",
        service=call.service_name or "",
        session=call.tags.session or "",
        team=call.tags.team or "",
        model=call.request_model or call.response_model or "",
    )


def cause(seen: Sighting) -> str:
    """The incident's key: one agent of one service, whatever its sessions; without an agent, the stream of calls."""
    parts = ("agent", seen.service, seen.agent) if seen.agent else seen.verdict.stream
    return f"loop:{_digest(parts)}"


def who(evidence: dict[str, Any]) -> str:
    """The agent as people know it, as far as it is known."""
    return str(evidence.get("agent") or evidence.get("service") or "unnamed agent")


def merge(evidence: dict[str, Any], seen: Sighting) -> dict[str, Any]:
    """The evidence with one more sighting: JSON, money as decimal strings, times in ISO 8601."""
    verdict = seen.verdict
    new = {
        "stream": _digest(verdict.stream),
        "session": seen.session,
        "rule": verdict.rule.value,
        "tool": verdict.tool,
        "period": verdict.period,
        "repeats": verdict.repeats,
        "calls": verdict.calls,
        "unpriced": verdict.unpriced,
        "cost": money.text(verdict.cost),
        "first_at": verdict.first_at.isoformat(),
        "last_at": verdict.last_at.isoformat(),
    }
    loops, found = [], False
    for loop in evidence.get("loops", []):
        if not found and loop["stream"] == new["stream"] and _overlap(loop, new):
            loops.append(_longer(loop, new))
            found = True
        else:
            loops.append(loop)
    if not found:
        loops.append(new)
    loops.sort(key=lambda loop: str(loop["last_at"]))
    earlier = dict(evidence.get("earlier", {"calls": 0, "unpriced": 0, "cost": "0"}))
    for loop in loops[:-MAX_LOOPS]:
        earlier["calls"] += loop["calls"]
        earlier["unpriced"] += loop["unpriced"]
        earlier["cost"] = money.text(Decimal(earlier["cost"]) + Decimal(loop["cost"]))
    loops = loops[-MAX_LOOPS:]
    first_at = min([evidence.get("first_at") or new["first_at"], *(str(loop["first_at"]) for loop in loops)])
    return {
        "agent": seen.agent,
        "service": seen.service,
        "team": seen.team,
        "model": seen.model,
        "rule": verdict.rule.value,
        "tool": verdict.tool,
        "repeats": loops[-1]["repeats"],
        "period": loops[-1]["period"],
        "sessions": len({loop["stream"] for loop in loops}),
        "session": seen.session,
        "calls": earlier["calls"] + sum(loop["calls"] for loop in loops),
        "unpriced": earlier["unpriced"] + sum(loop["unpriced"] for loop in loops),
        "cost": money.text(Decimal(earlier["cost"]) + sum((Decimal(loop["cost"]) for loop in loops), Decimal(0))),
        "usd_an_hour": _rate(loops[-1]),
        "first_at": first_at,
        "last_at": loops[-1]["last_at"],
        "loops": loops,
        "earlier": earlier,
    }


def _rate(loop: dict[str, Any]) -> str | None:
    rate = an_hour(
        Decimal(loop["cost"]), datetime.fromisoformat(loop["first_at"]), datetime.fromisoformat(loop["last_at"])
    )
    return None if rate is None else money.text(money.quantize(rate))


def _overlap(old: dict[str, Any], new: dict[str, Any]) -> bool:
    first, last = (datetime.fromisoformat(str(old[name])) for name in ("first_at", "last_at"))
    return datetime.fromisoformat(str(new["first_at"])) <= last and datetime.fromisoformat(str(new["last_at"])) >= first


def _longer(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two looks at one loop: the one that saw more, stretched over the time of both."""
    best = dict(new if new["calls"] >= old["calls"] else old)
    best["first_at"] = min(old["first_at"], new["first_at"])
    best["last_at"] = max(old["last_at"], new["last_at"])
    best["cost"] = money.text(max(Decimal(old["cost"]), Decimal(new["cost"])))
    return best


def _digest(parts: tuple[str, ...]) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
