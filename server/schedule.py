"""When each periodic task runs. Beat copies this table into its database, where the admin can see and pause each row.

A task that waited in the queue longer than `expire_seconds` is dropped: beat has sent the next one by then, and a
worker that was away must not work through a backlog of the same question. Never here: what the tasks do.
"""

from typing import Any

from celery.schedules import crontab


def _every(seconds: int, task: str) -> dict[str, Any]:
    return {"task": task, "schedule": float(seconds), "options": {"expire_seconds": max(30, seconds)}}


BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "Roll changed hours up": _every(5, "spendwatch.clickhouse.roll"),
    "Detect loops": _every(5, "spendwatch.alerts.detect_loops"),
    "Deliver messages": _every(5, "spendwatch.alerts.deliver"),
    "Evaluate budgets": _every(10, "spendwatch.alerts.evaluate_budgets"),
    "Settle aborted and unpriced calls": _every(120, "spendwatch.collectors.settle"),
    "Collect OpenRouter statements": {
        "task": "spendwatch.collectors.collect_openrouter",
        "schedule": crontab(minute="7"),
        "options": {"expire_seconds": 3600},
    },
    "Reconcile the last days": {
        "task": "spendwatch.ledger.reconcile_recent",
        "schedule": crontab(hour="2", minute="30"),
        "options": {"expire_seconds": 12 * 3600},
    },
}
