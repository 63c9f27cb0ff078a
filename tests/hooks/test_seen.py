"""What of a client's own request is looked at, and how."""

import io
from typing import Any

import pytest

from spendwatch.hooks import seen


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"plain", b"plain"),
        (None, b""),
        ("äö", "äö".encode()),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        (iter([b"made"]), None),
        (io.BufferedReader(io.BytesIO(b"file")), None),  # type: ignore[arg-type]
    ],
)
def test_a_body_is_seen_where_that_takes_nothing_from_it(value: Any, found: bytes | None) -> None:
    assert seen.body(value) == found


def test_a_file_in_memory_is_seen_from_where_it_stands_and_stays_there() -> None:
    file = io.BytesIO(b"sent already, to be sent")
    file.seek(14)
    assert seen.body(file) == b"to be sent"
    assert file.tell() == 14
    file.write(b"it can still be written to")


def test_a_large_upload_is_not_copied() -> None:
    large = bytes(seen.COPIED + 1)
    assert seen.body(bytearray(large)) is None
    assert seen.body(io.BytesIO(large)) is None
    assert seen.body(large) is large


@pytest.mark.parametrize(
    ("target", "host", "port", "expected"),
    [
        ("/v1/x?y=1", "API.OpenAI.com", 443, ("api.openai.com", None, "/v1/x?y=1")),
        ("/v1/x", "[::1]", 8000, ("::1", 8000, "/v1/x")),
        ("http://api.openai.com:81/v1/x?y=1", "proxy", 3128, ("api.openai.com", 81, "/v1/x?y=1")),
        ("https://api.openai.com", "proxy", 3128, ("api.openai.com", None, "/")),
    ],
)
def test_the_host_is_the_one_that_answers(
    target: str, host: str, port: int, expected: tuple[str, int | None, str]
) -> None:
    request = seen.request("post", target, host, port, {"X-Api-Key": b"k", b"Accept": "*/*"}, b"")
    assert (request.host, request.port, request.path) == expected
    assert request.method == "POST"
    assert request.headers == {"x-api-key": "k", "accept": "*/*"}
