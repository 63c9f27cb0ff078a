"""The start page's chart: spend per day (30 days) or per hour (48 hours), stacked by model.

The skin's own script draws it from two JSON texts in the page. Amounts travel as decimal text, which the chart turns
into lengths; no figure is read back from it.
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from spendwatch import money
from spendwatch.calls import Window
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection

PALETTE = ("#0e7490", "#f59e0b", "#6366f1", "#10b981", "#ec4899", "#94a3b8")
"""One colour for each of the dearest models, the last one for all others."""

STEPS = {
    "days": (queries.Step.DAY, timedelta(days=1), 30, "%d %b"),
    "hours": (queries.Step.HOUR, timedelta(hours=1), 48, "%d %b %H:00"),
}

OPTIONS = {
    "animation": False,
    "responsive": True,
    "maintainAspectRatio": False,
    "interaction": {"mode": "index", "intersect": False},
    "maxBarThickness": 28,
    "plugins": {
        "legend": {
            "display": True,
            "align": "start",
            "position": "bottom",
            "labels": {"usePointStyle": True, "pointStyle": "circle", "boxHeight": 6, "color": "#94a3b8"},
        }
    },
    "scales": {
        "x": {
            "stacked": True,
            "grid": {"display": False},
            "ticks": {"maxTicksLimit": 10, "maxRotation": 0, "color": "#94a3b8"},
        },
        "y": {
            "stacked": True,
            "beginAtZero": True,
            "border": {"display": False},
            "grid": {"drawTicks": False},
            "ticks": {
                "maxTicksLimit": 6,
                "padding": 8,
                "color": "#94a3b8",
                "format": {"style": "currency", "currency": "USD", "maximumSignificantDigits": 3},
            },
        },
    },
}


def spend_chart(ch: Connection, now: datetime, asked: str) -> tuple[str, str, str]:
    """The step ("days" or "hours"), and the chart's data and options as JSON.

    asked: the step somebody chose. Without one, hours as long as all there is fits into them. Raises StoreError.
    """
    if asked in STEPS:
        points = _points(ch, now, asked)
    else:
        asked, points = "days", _points(ch, now, "days")
        first = min((point.start for point in points), default=None)
        if first is not None and now - first < timedelta(hours=48):
            asked, points = "hours", _points(ch, now, "hours")
    return asked, _data(points, asked, now), json.dumps(OPTIONS)


def _starts(step: str, now: datetime) -> list[datetime]:
    _, length, count, _ = STEPS[step]
    last = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if step == "days":
        last = last.replace(hour=0)
    return [last - length * back for back in reversed(range(count))]


def _points(ch: Connection, now: datetime, step: str) -> list[queries.SeriesPoint]:
    return queries.spend_series(ch, {}, Window(_starts(step, now)[0], now), step=STEPS[step][0], by="request_model")


def _data(points: list[queries.SeriesPoint], step: str, now: datetime) -> str:
    starts = _starts(step, now)
    totals: dict[str, Decimal] = {}
    for point in points:
        totals[point.key] = totals.get(point.key, Decimal(0)) + point.cost
    dearest = sorted(totals, key=lambda key: (-totals[key], key))
    named = dearest if len(dearest) <= len(PALETTE) else dearest[: len(PALETTE) - 1]
    series: dict[str, dict[datetime, Decimal]] = {key: {} for key in named}
    others: dict[datetime, Decimal] = {}
    for point in points:
        into = series.get(point.key, others)
        into[point.start] = into.get(point.start, Decimal(0)) + point.cost
    lines = [(key or "(no model)", values) for key, values in series.items()]
    if others:
        lines.append(("all others", others))
    return json.dumps(
        {
            "labels": [start.strftime(STEPS[step][3]) for start in starts],
            "datasets": [
                {
                    "label": label,
                    "backgroundColor": PALETTE[index],
                    "borderRadius": 2,
                    "data": [money.text(values.get(start, Decimal(0))) for start in starts],
                }
                for index, (label, values) in enumerate(lines)
            ],
        }
    )
