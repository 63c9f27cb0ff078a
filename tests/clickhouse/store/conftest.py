"""What the store's tests share: clients of the running store, and a table of their own."""

import http.client
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from tests.fixtures.store import RunningStore

Fetch = Callable[..., "Reply"]


class Reply:
    """An HTTP answer, read whole."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    @property
    def code(self) -> int | None:
        """ClickHouse's error code; None when there is none."""
        code = self.headers.get("X-ClickHouse-Exception-Code")
        return None if code is None else int(code)


@pytest.fixture
def client(store_dsn: str) -> Iterator[Client]:
    """clickhouse-connect as anyone uses it."""
    with clickhouse_connect.get_client(dsn=store_dsn) as made:
        yield made


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    """The name of an empty table (number UInt64, word String)."""
    name = f"t_{secrets.token_hex(4)}"
    client.command(f"CREATE TABLE {name} (number UInt64, word String) ENGINE = MergeTree ORDER BY number")
    yield name
    client.command(f"DROP TABLE {name}")


@pytest.fixture
def fetch(store_process: RunningStore) -> Fetch:
    """Send one HTTP request as `spendwatch` (or as the user given) and read the answer."""

    def send(
        body: bytes | str | None = None,
        *,
        method: str | None = None,
        path: str = "/",
        headers: dict[str, str] | None = None,
        user: str | None = "spendwatch",
        password: str | None = None,
        **params: str,
    ) -> Reply:
        sent = dict(headers or {})
        if user is not None:
            sent["X-ClickHouse-User"] = user
            sent["X-ClickHouse-Key"] = store_process.password if password is None else password
        method = method or ("GET" if body is None else "POST")
        with closing(http.client.HTTPConnection(urlsplit(store_process.url).netloc, timeout=60)) as connection:
            query = f"?{urlencode(params)}" if params else ""
            connection.request(method, path + query, body.encode() if isinstance(body, str) else body, sent)
            return Reply(connection.getresponse())

    return send
