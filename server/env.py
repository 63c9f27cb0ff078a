"""The environment, read once into a frozen object; everything missing or wrong is reported in one message.

Every setting is a variable SPENDWATCH_<FIELD>. With none set, the service runs on one machine, on loopback, and keeps
everything in `data_dir`.
"""

import contextlib
import hashlib
import os
import secrets
import tempfile
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from spendwatch.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

Port = Annotated[int, Field(ge=1, le=65535)]


class Env(BaseSettings):
    """The settings of the server. Units are in the names; paths are absolute after reading."""

    model_config = SettingsConfigDict(env_prefix="SPENDWATCH_", frozen=True, extra="ignore")

    data_dir: Path = ROOT / ".data"
    debug: bool = False
    secret_key: str | None = Field(default=None, min_length=32)
    secret_key_fallbacks: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ("localhost", "127.0.0.1", "[::1]")
    public_url: str | None = None
    https: bool = False
    bind: str = "127.0.0.1"
    web_port: Port = 8000
    ingest_port: Port = 4318
    store_port: Port = 8123
    database_url: str | None = None
    clickhouse: str | None = None
    broker_url: str | None = None
    retention_days: Annotated[int, Field(ge=1)] | None = None
    log_level: str = "INFO"
    supervised: bool = False
    """Set by the supervisor for the processes it starts."""

    @field_validator("allowed_hosts", "secret_key_fallbacks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("public_url")
    @classmethod
    def _a_url(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("expected an address such as https://spend.example.com")
        return value

    @property
    def local_host(self) -> str:
        """The address under which this machine reaches what is bound to `bind`."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.bind, self.bind)  # noqa: S104

    @property
    def base_url(self) -> str:
        """Where people reach the web pages; no trailing slash."""
        return (self.public_url or f"http://{_in_url(self.local_host)}:{self.web_port}").rstrip("/")

    @property
    def ingest_url(self) -> str:
        """Where apps on this machine send their spans: the SDK's SPENDWATCH_ENDPOINT; no trailing slash."""
        return f"http://{_in_url(self.local_host)}:{self.ingest_port}"

    @property
    def embedded_store(self) -> bool:
        """True when ClickHouse is the store process in data_dir."""
        return self.clickhouse is None

    @property
    def embedded_broker(self) -> bool:
        """True when the broker is the bundled Valkey in data_dir."""
        return self.broker_url is None

    @cached_property
    def django_secret_key(self) -> str:
        """SPENDWATCH_SECRET_KEY, else the one kept in data_dir (made at the first start, mode 0600)."""
        return self.secret_key or self.secret("secret_key")

    @cached_property
    def clickhouse_dsn(self) -> str:
        """SPENDWATCH_CLICKHOUSE, else the embedded store's."""
        if self.clickhouse is not None:
            return self.clickhouse
        # The store listens on loopback whatever `bind` says: only the processes of this machine talk to it.
        return f"http://spendwatch:{self.secret('store_password')}@127.0.0.1:{self.store_port}/spendwatch"

    @cached_property
    def valkey_socket(self) -> Path:
        """The unix socket of the bundled Valkey. A socket's path may hold about 100 bytes, so a deep data_dir gets a
        short stand-in below /tmp."""
        path = self.data_dir / "run" / "valkey.sock"
        if len(str(path)) > 100:
            name = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:16]
            path = Path("/tmp") / f"spendwatch-{name}" / "valkey.sock"  # noqa: S108  # made 0700 by the supervisor
        return path

    @cached_property
    def celery_broker_url(self) -> str:
        """SPENDWATCH_BROKER_URL, else the bundled Valkey's."""
        return self.broker_url or f"redis+socket://{self.valkey_socket}"

    def with_values(self, **values: object) -> Self:
        """The same settings with some of them replaced; nothing derived from the old ones is kept."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | values)

    def as_environment(self) -> dict[str, str]:
        """These settings as the variables another process reads them from."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"SPENDWATCH_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in values.items()
            if value is not None
        }

    def secret(self, name: str) -> str:
        """A random secret kept in data_dir/secrets/<name>, mode 0600; made when it is asked for the first time.

        Raises ConfigError when the folder can't be written or the file can't be read.
        """
        path = self.data_dir / "secrets" / name
        try:
            if not path.exists():
                _make_secret(path)
            return path.read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"expected to keep secrets in {path.parent}, found: {error.strerror}. "
                "Make the folder writable for this user, or set SPENDWATCH_DATA_DIR to one that is."
            ) from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _make_secret(path: Path) -> None:
    """Write a new secret under path, unless another process is first: then its secret is the one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written aside and linked into place, so that nobody reads a file that is still empty. mkstemp makes it 0600.
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as new:
            new.write(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


@lru_cache(maxsize=1)
def env() -> Env:
    """The process's settings, read at the first call. Raises ConfigError that names every wrong variable at once."""
    try:
        return Env()
    except ValidationError as error:
        wrong = "; ".join(
            f"SPENDWATCH_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}, found {item['input']!r}"
            for item in error.errors()
        )
        raise ConfigError(f"the environment can't be used: {wrong}. Correct these variables and start again.") from None
