"""Streams whose tokens nobody knows: they ended well and told no usage, so they are in no sum of spend."""

from dataclasses import dataclass

from spendwatch.calls import Window
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.queries.filters import started_within


@dataclass(frozen=True, slots=True)
class Uncounted:
    """So many streams of a model at a provider, read by one wire format."""

    provider_name: str
    request_model: str
    wire_format: str
    calls: int


def uncounted_streams(ch: Connection, window: Window) -> list[Uncounted]:
    """The streams of a window that came to their end without usage, most first. Raises StoreError.

    Streams that the app left early or that broke are not among them: their usage was still to come.
    """
    within, parameters = started_within(window)
    rows = ch.query(
        "uncounted_streams",
        # Their columns alone are read, and only of streams.
        "SELECT provider_name, request_model, wire_format, count() AS calls FROM llm_calls FINAL "  # noqa: S608
        f"WHERE {within} AND streamed AND status = 'ok' AND isNull(output_tokens) AND operation_name IN "
        "('chat', 'text_completion', 'generate_content') "
        "GROUP BY provider_name, request_model, wire_format ORDER BY calls DESC, provider_name, request_model",
        parameters,
    )
    return [Uncounted(*row) for row in rows]
