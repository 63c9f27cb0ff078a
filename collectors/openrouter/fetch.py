"""Getting documents from OpenRouter's API: the only part of this collector that touches the network.

A document is handed back verbatim. A refusal says what was expected, found and to be done. Never here: what a document
means, the database.
"""

import time
from collections.abc import Mapping
from types import TracebackType

import httpx2

from spendwatch.errors import CollectError

TIMEOUT_S = 30.0
TRIES = 4
MAX_WAIT_S = 20.0
"""The longest wait inside one collection; what asks for more is left for the next one."""
MAX_BYTES = 64 * 1024 * 1024


class NotFoundError(CollectError):
    """404: there is no such thing, or not yet."""


class OpenRouter:
    """One account's API; a context manager. Not for two threads at once."""

    def __init__(self, *, account: str, base_url: str, key: str) -> None:
        self._account = account
        self._base_url = base_url.rstrip("/")
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=TIMEOUT_S,
            follow_redirects=False,
        )

    def __enter__(self) -> "OpenRouter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """The document at a path ("/activity"), verbatim.

        A busy or unreachable server is asked again, as it says in Retry-After. Raises NotFoundError, CollectError.
        """
        wait_s = 0.5
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(path, query or {})
            except CollectError as error:
                asked = error.retry_after_s
                if error.permanent or attempt == TRIES or (asked or 0) > MAX_WAIT_S:
                    raise
                time.sleep(wait_s if asked is None else asked)
                wait_s *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _once(self, path: str, query: Mapping[str, str]) -> str:
        try:
            with self._client.stream("GET", self._base_url + path, params=dict(query)) as answer:
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise CollectError(
                            f"{self._place(path)}: expected a document of at most {MAX_BYTES} bytes, found more. "
                            "Nothing was stored; check the account's base URL.",
                            permanent=True,
                        )
        except httpx2.HTTPError as error:
            raise CollectError(
                f"{self._place(path)} could not be reached at {self._base_url}: {error or type(error).__name__}. "
                "Nothing was stored; the next collection asks again."
            ) from error
        except httpx2.InvalidURL as error:
            raise CollectError(
                f"{self._place(path)}: the base URL {self._base_url!r} can't be used: {error}", permanent=True
            ) from error
        text = body.decode("utf-8", "replace")
        if answer.status_code != 200:
            raise self._refusal(path, answer, text)
        return text

    def _refusal(self, path: str, answer: httpx2.Response, text: str) -> CollectError:
        status, said = answer.status_code, " ".join(text[:300].split())
        place = self._place(path)
        if status in (401, 403):
            return CollectError(
                f"{place}: expected a management key, found a key without rights (HTTP {status}: {said}). Nothing was "
                "stored. Make one at OpenRouter under Settings > Management keys and put it into the account.",
                permanent=True,
            )
        if status == 404:
            return NotFoundError(f"{place}: not found (HTTP 404: {said})", permanent=True)
        return CollectError(
            f"{place}: expected HTTP 200, found {status}: {said}. Nothing was stored.",
            permanent=status < 500 and status not in (408, 429),
            retry_after_s=_retry_after_s(answer.headers.get("retry-after")),
        )

    def _place(self, path: str) -> str:
        return f"openrouter account {self._account!r} {path}"


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header; None without one. A date is left to the usual backoff."""
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
