"""Settings: arguments over SPENDWATCH_* over OTEL_*, and a wrong one is named with what to do."""

import pytest

from spendwatch import config
from spendwatch.errors import ConfigError


@pytest.mark.parametrize(
    ("endpoint", "environ", "url"),
    [
        (None, {}, "http://127.0.0.1:4318/v1/traces"),
        ("https://spend.example", {}, "https://spend.example/v1/traces"),
        ("https://spend.example/base/", {}, "https://spend.example/base/v1/traces"),
        ("https://spend.example/v1/traces", {}, "https://spend.example/v1/traces"),
        (None, {"SPENDWATCH_ENDPOINT": "http://a:1"}, "http://a:1/v1/traces"),
        ("http://b:2", {"SPENDWATCH_ENDPOINT": "http://a:1"}, "http://b:2/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:3"}, "http://c:3/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:3/custom"}, "http://c:3/custom"),
        (
            None,
            {"SPENDWATCH_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:3"},
            "http://a:1/v1/traces",
        ),
        (
            None,
            {"SPENDWATCH_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "http://a:1/v1/traces",
        ),
    ],
)
def test_the_endpoint(endpoint: str | None, environ: dict[str, str], url: str) -> None:
    assert config.resolve(endpoint=endpoint, environ=environ).url == url


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        ({"endpoint": "clickhouse://user:pw@host:8123/db"}, {}, "ClickHouse"),
        ({"endpoint": "localhost:4318"}, {}, "http://host:port"),
        ({"endpoint": "http://host:99999"}, {}, "http://host:port"),
        ({"endpoint": "http://u:p@host"}, {}, "SPENDWATCH_TOKEN"),
        ({}, {"SPENDWATCH_ENDPOINT": "ftp://x"}, "SPENDWATCH_ENDPOINT"),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({}, {"OTEL_EXPORTER_OTLP_COMPRESSION": "br"}, "gzip or none"),
        ({}, {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "seconds"),
        ({}, {"SPENDWATCH_HOSTS": "127.0.0.1:4100"}, "name=value"),
        ({}, {"SPENDWATCH_TAGS": "search"}, "name=value"),
        ({}, {"SPENDWATCH_SPOOL_LIMIT_MIB": "0"}, "whole number"),
        ({"hosts": {"http://x": "openai"}}, {}, "scheme"),
        ({"clients": ["curl"]}, {}, "use any of httpx, httpx2, urllib3"),
        ({"clients": "httpx"}, {}, "list of names"),
        ({"token": "two words"}, {}, "SPENDWATCH_TOKEN"),
        ({"tags": {7: "x"}}, {}, "tag's name"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(
    arguments: dict[str, object], environ: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        config.resolve(**arguments, environ=environ)  # type: ignore[arg-type]
    assert said in str(raised.value)
    assert "two words" not in str(raised.value)


def test_the_token_is_a_bearer_and_is_not_in_the_settings_text() -> None:
    settings = config.resolve(environ={"SPENDWATCH_TOKEN": "swt_secret"})
    assert settings.headers["authorization"] == "Bearer swt_secret"
    assert "swt_secret" not in repr(settings)


def test_another_vendors_headers_go_to_another_vendor_only() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=theirs", "SPENDWATCH_ENDPOINT": "http://a:1"}
    assert "api-key" not in config.resolve(environ=environ).headers
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=theirs", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}
    assert config.resolve(environ=environ).headers["api-key"] == "theirs"


@pytest.mark.parametrize(
    ("service", "environ", "name"),
    [
        (None, {}, "unknown_service:python"),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=r,x=1"}, "r"),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=r", "OTEL_SERVICE_NAME": "o"}, "o"),
        (None, {"OTEL_SERVICE_NAME": "o", "SPENDWATCH_SERVICE": "s"}, "s"),
        ("a", {"SPENDWATCH_SERVICE": "s"}, "a"),
    ],
)
def test_the_services_name(service: str | None, environ: dict[str, str], name: str) -> None:
    assert config.resolve(service=service, environ=environ).resource["service.name"] == name


def test_tags_and_hosts_come_from_both() -> None:
    settings = config.resolve(
        tags={"team": "code"},
        hosts={"Other.example": None},
        environ={
            "SPENDWATCH_TAGS": "team=env, agent=x,ticket=7",
            "SPENDWATCH_HOSTS": "127.0.0.1:4100=openrouter,internal.example=-",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging",
        },
    )
    assert (settings.tags.team, settings.tags.agent, settings.tags.environment) == ("code", "x", "staging")
    assert settings.tags.extra == {"ticket": "7"}
    assert settings.hosts == {"127.0.0.1:4100": "openrouter", "internal.example": None, "other.example": None}


def test_a_client_that_rides_on_another_stands_for_it() -> None:
    assert config.resolve(clients=["requests", "boto3", "urllib.request"], environ={}).clients == (
        "urllib3",
        "http.client",
    )


@pytest.mark.parametrize(
    ("endpoint", "environ", "squeezed"),
    [
        ("https://spend.example", {}, True),
        ("http://127.0.0.1:4318", {}, False),
        ("http://localhost:4318", {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, True),
        ("https://spend.example", {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}, False),
    ],
)
def test_what_leaves_the_machine_is_gzipped(endpoint: str, environ: dict[str, str], squeezed: bool) -> None:
    assert config.resolve(endpoint=endpoint, environ=environ).gzip is squeezed
