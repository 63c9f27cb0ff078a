"""Who may speak to the store: names and passwords read from files, never from the command line.

Only SHA-256 digests are kept in memory and they are compared in constant time. A read-only user may read and use
temporary tables; the engine itself refuses the rest.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spendwatch.clickhouse.store.errors import AUTHENTICATION_FAILED, Refusal, refusal
from spendwatch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class User:
    """One who may log in. digest: SHA-256 of the password."""

    name: str
    digest: bytes
    readonly: bool


class Unnamed(Refusal):
    """A request without any credentials: the one refusal that asks for them (401)."""

    @property
    def status(self) -> int:
        return 401


def read_users(name: str, password_file: Path, users_file: Path | None) -> dict[str, User]:
    """The user `name` with the password in password_file, and those of users_file (`name:password[:ro]`, one a line).

    Raises ConfigError when a file can't be read, is empty or has a line of another form.
    """
    password = _read(password_file).strip()
    if not password:
        raise ConfigError(f"expected a password in {password_file}, found an empty file. Write one into it.")
    users = {name: User(name, _digest(password), readonly=False)}
    if users_file is not None:
        for number, line in enumerate(_read(users_file).splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            user, _, rest = line.strip().partition(":")
            secret, _, suffix = rest.rpartition(":") if rest.endswith((":ro", ":rw")) else (rest, "", "rw")
            if not user or not secret:
                raise ConfigError(
                    f"expected name:password or name:password:ro in line {number} of {users_file}, found another form. "
                    "Correct the line."
                )
            users[user] = User(user, _digest(secret), readonly=suffix == "ro")
    return users


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"expected a password file at {path}, found: {reason}. Name a file that can be read."
        ) from None


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()


def authenticate(users: Mapping[str, User], headers: Mapping[str, str], params: Mapping[str, str]) -> User:
    """The user a request names by X-ClickHouse-User/Key, basic authentication or ?user=&password=.

    Raises Refusal 516, with 401 when the request names nobody.
    """
    found = _credentials(headers, params)
    if found is None:
        raise Unnamed(
            AUTHENTICATION_FAILED,
            f"Code: {AUTHENTICATION_FAILED}. DB::Exception: Authentication failed: the request has no user and "
            "password. (AUTHENTICATION_FAILED)",
        )
    name, password = found
    user = users.get(name)
    # An unknown name costs the same comparison, so that its answer takes no less time.
    expected = user.digest if user else b"\0" * 32
    if not hmac.compare_digest(expected, _digest(password)) or user is None:
        raise refusal(
            AUTHENTICATION_FAILED,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
        )
    return user


def _credentials(headers: Mapping[str, str], params: Mapping[str, str]) -> tuple[str, str] | None:
    if "x-clickhouse-user" in headers:
        return headers["x-clickhouse-user"], headers.get("x-clickhouse-key", "")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return name, password
    if "user" in params:
        return params["user"], params.get("password", "")
    return None
