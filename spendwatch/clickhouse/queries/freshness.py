"""How far the record reaches: when the last call arrived."""

from datetime import UTC, datetime

from spendwatch.clickhouse.client import Connection


def last_received(ch: Connection) -> datetime | None:
    """When the newest call arrived, None when there is none at all. Raises StoreError."""
    ((count, newest),) = ch.query("last_received", "SELECT count(), max(received_at) FROM llm_calls")
    if not count:
        return None
    found: datetime = newest
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
