"""One HTTP request in ClickHouse's terms: credentials, statement, parameters, settings, and how the answer is wanted.

The names are those of ClickHouse's HTTP interface. What is not one of them is a setting, as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from spendwatch.clickhouse.store.body import Form
from spendwatch.clickhouse.store.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, SET_NON_GRANTED_ROLE, refusal

# Settings of ClickHouse's HTTP server itself. They are answered here (or mean nothing here) and are not given to the
# engine: each new combination of settings would cost a connection a round trip.
_HTTP_ONLY = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "enable_http_compression",
        "http_connection_timeout",
        "http_headers_progress_interval_ms",
        "http_native_compression_disable_checksumming_on_decompress",
        "http_receive_timeout",
        "http_send_timeout",
        "http_wait_end_of_query",
        "http_zlib_compression_level",
        "quota_key",
        "send_progress_in_http_headers",
        "stacktrace",
    }
)

_OFF = ("", "0", "false", "False")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a request asks for. query: the statement in the URL or form, "" when it is in the body. database: None when
    the request leaves it to the user or the session. tables: the external tables, each with its format and columns."""

    method: str
    headers: Mapping[str, str]
    params: Mapping[str, str]
    query: str
    database: str | None
    default_format: str
    query_id: str | None
    session_id: str | None
    session_timeout_s: int
    session_check: bool
    wait_end_of_query: bool
    accept_encoding: str
    query_params: Mapping[str, str]
    settings: Mapping[str, str]
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def get(self) -> bool:
        """Whether the method promises to change nothing."""
        return self.method in ("GET", "HEAD")


def read_request(method: str, query_string: bytes, headers: Mapping[str, str], form: Form) -> Request:
    """Read a request; the fields of a multipart body count like those of the URL. Raises Refusal."""
    params = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    params.update(form.fields)
    taken: set[str] = {"user", "password"}

    def take(name: str, default: str = "") -> str:
        taken.add(name)
        return params.get(name, default)

    tables: dict[str, dict[str, str]] = {}
    for name in form.files:
        tables[name] = {
            kind: value for kind in ("format", "types", "structure") if (value := take(f"{name}_{kind}")) != ""
        }
    query_params = {name[6:]: value for name, value in params.items() if name.startswith("param_")}
    compression = take("enable_http_compression", "1") not in _OFF
    for name in ("compress", "decompress"):
        if take(name) not in _OFF:
            raise refusal(
                NOT_IMPLEMENTED,
                f"The embedded store has no block compression ({name}=1). Use Accept-Encoding and Content-Encoding.",
            )
    if take("role"):
        raise refusal(SET_NON_GRANTED_ROLE, f"The embedded store has no roles, so none named {params['role']}.")
    timeout = take("session_timeout", "60")
    if not timeout.isdecimal():
        raise refusal(BAD_ARGUMENTS, f"Invalid session timeout: {timeout!r}, expected seconds.")
    fixed = {
        "query": take("query"),
        "database": take("database") or headers.get("x-clickhouse-database") or None,
        "default_format": take("default_format") or headers.get("x-clickhouse-format", "TabSeparated"),
        "query_id": take("query_id") or None,
        "session_id": take("session_id") or None,
    }
    return Request(
        method=method,
        headers=headers,
        params=params,
        query=fixed["query"] or "",
        database=fixed["database"],
        default_format=fixed["default_format"] or "TabSeparated",
        query_id=fixed["query_id"],
        session_id=fixed["session_id"],
        session_timeout_s=min(int(timeout), 3600),
        session_check=take("session_check") == "1",
        wait_end_of_query=take("wait_end_of_query") not in _OFF,
        accept_encoding=headers.get("accept-encoding", "") if compression else "",
        query_params=query_params,
        settings={
            name: value
            for name, value in params.items()
            if name not in taken and name not in _HTTP_ONLY and not name.startswith("param_")
        },
        tables=tables,
    )
