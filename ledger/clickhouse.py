"""The server's door to ClickHouse: one connection per thread and caller.

Every task, page and command on the Django side gets its connection here, from SPENDWATCH_CLICKHOUSE_DSN as it stands
when it asks. Invariant: a connection is never shared between threads or processes. Never here: SQL.
"""

import os
import threading

from django.conf import settings

from spendwatch.clickhouse.client import Connection, connect

_local = threading.local()


def connection(caller: str) -> Connection:
    """This thread's connection for `caller` (the name its queries are tagged with: "alerts.budgets").

    Raises StoreError when ClickHouse refuses or can't be reached.
    """
    dsn: str = settings.SPENDWATCH_CLICKHOUSE_DSN
    # The pid is part of the key: a forked child must not speak over its parent's sockets.
    key = (os.getpid(), dsn, caller)
    kept: dict[tuple[int, str, str], Connection] = _local.__dict__.setdefault("connections", {})
    if key not in kept:
        kept[key] = connect(dsn, caller=caller)
    return kept[key]
