"""The SDK's settings: what instrument() was told, completed from the environment, checked once.

An argument wins over SPENDWATCH_*, and that over OpenTelemetry's own OTEL_*. Frozen once read. Never here: I/O other
than reading the environment; a setting that is wrong raises ConfigError here and nowhere later.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from spendwatch.calls import TAG_NAMES, Tags
from spendwatch.errors import ConfigError
from spendwatch.tagging import make_tags

DEFAULT_ENDPOINT = "http://127.0.0.1:4318"
CLIENTS: tuple[str, ...] = ("httpx", "httpx2", "urllib3", "aiohttp", "http.client")
"""The HTTP clients that can be hooked, by the name they are imported by."""

RIDES_ON: dict[str, tuple[str, ...]] = {
    "requests": ("urllib3",),
    "botocore": ("urllib3",),
    "boto3": ("urllib3",),
    "aiobotocore": ("aiohttp", "httpx"),
    "urllib": ("http.client",),
    "urllib.request": ("http.client",),
}
"""Clients that send by one of those, and are hooked there."""

_HERE = ("127.0.0.1", "::1", "localhost")

SPOOL_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything instrument() decided. See resolve()."""

    url: str
    """Where spans are posted, the full address."""
    url_given: bool
    """Whether somebody named it: it is not the default address."""
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    gzip: bool
    certificate: str | None
    """A file of CA certificates to trust, None for the system's."""
    token: str | None = field(repr=False)
    resource: Mapping[str, str]
    """The OTel resource attributes of this process, service.name among them."""
    tags: Tags
    clients: tuple[str, ...]
    hosts: Mapping[str, str | None]
    http_spans: bool | None
    request_stream_usage: bool
    tool_names: bool
    spool_dir: str | None
    """The folder for spool files; None: a default of the user's, see spool.default_folder()."""
    spool_limit_bytes: int = SPOOL_LIMIT_BYTES


def resolve(
    *,
    endpoint: str | None = None,
    token: str | None = None,
    service: str | None = None,
    tags: Mapping[str, str] | None = None,
    clients: Iterable[str] | None = None,
    hosts: Mapping[str, str | None] | None = None,
    http_spans: bool | None = None,
    request_stream_usage: bool = False,
    tool_names: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Complete the arguments of instrument() from the environment. Raises ConfigError, naming the setting."""
    env = os.environ if environ is None else environ
    token = token or env.get("SPENDWATCH_TOKEN") or None
    url, given, from_otel = _url(endpoint, env)
    headers = {"user-agent": "spendwatch"}
    if from_otel:
        # Only to the endpoint they were set for: they may hold another vendor's key.
        headers.update(_otel_headers(env))
    if token:
        if not token.isascii() or any(c.isspace() for c in token):
            raise ConfigError("SPENDWATCH_TOKEN: expected an ingest token without spaces, found other characters")
        headers["authorization"] = f"Bearer {token}"
    # On this machine the bytes cost less than squeezing them.
    compression = _otel(env, "COMPRESSION") or ("none" if urlsplit(url).hostname in _HERE else "gzip")
    if compression not in ("gzip", "none"):
        raise ConfigError(f"OTEL_EXPORTER_OTLP_COMPRESSION: expected gzip or none, found {compression!r}")
    return Settings(
        url=url,
        url_given=given,
        headers=headers,
        timeout_s=_seconds(env),
        gzip=compression == "gzip",
        certificate=_otel(env, "CERTIFICATE"),
        token=token,
        resource=_resource(service, env),
        tags=_default_tags(tags, env),
        clients=_clients(clients),
        hosts=_hosts(hosts, env),
        http_spans=http_spans,
        request_stream_usage=request_stream_usage,
        tool_names=tool_names,
        spool_dir=env.get("SPENDWATCH_SPOOL_DIR") or None,
        spool_limit_bytes=_spool_limit(env),
    )


def _otel(env: Mapping[str, str], name: str) -> str | None:
    return env.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or env.get(f"OTEL_EXPORTER_OTLP_{name}") or None


def _url(endpoint: str | None, env: Mapping[str, str]) -> tuple[str, bool, bool]:
    """The address to post to, whether it was named at all, and whether OTEL_* named it."""
    ours = endpoint or env.get("SPENDWATCH_ENDPOINT")
    if ours:
        return _with_path(_checked(ours, "endpoint / SPENDWATCH_ENDPOINT")), True, False
    traces = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    general = env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not traces and not general:
        return _with_path(_checked(DEFAULT_ENDPOINT, "the default endpoint")), False, False
    protocol = _otel(env, "PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, but spendwatch speaks http/protobuf only. "
            "Set SPENDWATCH_ENDPOINT to an OTLP/HTTP address (http://host:4318)."
        )
    if traces:
        # By OpenTelemetry's rule the signal's own endpoint is the full address, used as it is.
        return _checked(traces, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").geturl(), True, True
    return _with_path(_checked(general or "", "OTEL_EXPORTER_OTLP_ENDPOINT")), True, True


def _checked(endpoint: str, name: str) -> SplitResult:
    parts = urlsplit(endpoint.strip())
    if parts.scheme == "clickhouse":
        raise ConfigError(
            f"{name}: writing straight into ClickHouse (clickhouse://…) is not supported by this version. "
            "Use the http:// or https:// address of a spendwatch server or of any OTLP/HTTP receiver."
        )
    try:
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise ConfigError(
            f"{name}: expected http://host:port or https://host:port, found {endpoint!r}. "
            "A spendwatch server started with `make up` listens on http://127.0.0.1:4318."
        )
    if parts.username or parts.password:
        raise ConfigError(f"{name}: expected no user or password in the address; put the token into SPENDWATCH_TOKEN")
    return parts


def _with_path(parts: SplitResult) -> str:
    path = parts.path.rstrip("/")
    if not path.endswith("/v1/traces"):
        path += "/v1/traces"
    return parts._replace(path=path, fragment="").geturl()


def _otel_headers(env: Mapping[str, str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for item in (_otel(env, "HEADERS") or "").split(","):
        key, equals, value = item.partition("=")
        if equals and key.strip():
            out[unquote(key).strip().lower()] = unquote(value).strip()
    return out


def _seconds(env: Mapping[str, str]) -> float:
    text = _otel(env, "TIMEOUT")
    if text is None:
        return 10.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_TIMEOUT: expected seconds between 0 and 600, found {text!r}")
    return seconds


def _spool_limit(env: Mapping[str, str]) -> int:
    text = env.get("SPENDWATCH_SPOOL_LIMIT_MIB")
    if not text:
        return SPOOL_LIMIT_BYTES
    if not text.isdigit() or not 1 <= int(text) <= 65536:
        raise ConfigError(f"SPENDWATCH_SPOOL_LIMIT_MIB: expected a whole number from 1 to 65536, found {text!r}")
    return int(text) * 1024 * 1024


def _resource(service: str | None, env: Mapping[str, str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for item in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = item.partition("=")
        if equals and key.strip():
            out[key.strip()] = unquote(value.strip())
    name = service or env.get("SPENDWATCH_SERVICE") or env.get("OTEL_SERVICE_NAME")
    if name:
        out["service.name"] = name
    out.setdefault("service.name", "unknown_service:python")
    return out


def _pairs(text: str, name: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ConfigError(f"{name}: expected name=value pairs separated by commas, found {item!r}")
        out[key.strip()] = value.strip()
    return out


def _default_tags(tags: Mapping[str, str] | None, env: Mapping[str, str]) -> Tags:
    values = _pairs(env.get("SPENDWATCH_TAGS", ""), "SPENDWATCH_TAGS")
    values.update(tags or {})
    if "environment" not in values:
        # What OTel calls the deployment environment is the tag of that name unless the app says otherwise.
        resource = _resource(None, env)
        name = resource.get("deployment.environment.name") or resource.get("deployment.environment")
        if name:
            values["environment"] = name
    try:
        return make_tags(Tags(), values)
    except TypeError as exc:
        raise ConfigError(f"tags / SPENDWATCH_TAGS: {exc}; the usual names are {', '.join(TAG_NAMES)}") from exc


def _clients(clients: Iterable[str] | None) -> tuple[str, ...]:
    if clients is None:
        return CLIENTS
    if isinstance(clients, str):
        raise ConfigError(f"clients: expected a list of names, found the text {clients!r}; write [{clients!r}]")
    chosen: dict[str, None] = {}
    for name in clients:
        if name not in CLIENTS and name not in RIDES_ON:
            known = ", ".join((*CLIENTS, *RIDES_ON))
            raise ConfigError(f"clients: {name!r} is not a client that can be hooked; use any of {known}")
        chosen.update(dict.fromkeys(RIDES_ON.get(name, (name,))))
    return tuple(chosen)


def _hosts(hosts: Mapping[str, str | None] | None, env: Mapping[str, str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for host, provider in _pairs(env.get("SPENDWATCH_HOSTS", ""), "SPENDWATCH_HOSTS").items():
        found[host.lower()] = None if provider == "-" else provider
    for host, chosen in (hosts or {}).items():
        if "/" in host:
            raise ConfigError(f'hosts: expected "host" or "host:port", found {host!r}; leave out scheme and path')
        found[host.lower()] = chosen
    return found
