"""Bodies: decompressed within a limit, and bombs refused before they have gone off."""

import gzip
import tracemalloc
import zlib

import pytest

from collectors.otlp.body import BodyBrokenError, BodyTooLargeError, decompress

TEXT = b"some spans " * 1000
BARE = zlib.compressobj(wbits=-15)
ENCODED = {
    "": TEXT,
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_body_is_read_in_every_encoding(encoding: str) -> None:
    assert decompress(ENCODED[encoding], encoding, limit=len(TEXT)) == TEXT


def test_bare_deflate_under_that_name_is_read_too() -> None:
    assert decompress(BARE.compress(TEXT) + BARE.flush(), "deflate", limit=len(TEXT)) == TEXT


def test_several_gzip_files_in_a_row_are_one_body() -> None:
    assert decompress(gzip.compress(b"one") + gzip.compress(b"two") + b"\0\0", "gzip", limit=100) == b"onetwo"


def test_thousands_of_empty_gzip_files_are_refused() -> None:
    with pytest.raises(BodyBrokenError, match="in a row"):
        decompress(gzip.compress(b"") * 1000, "gzip", limit=100)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_one_byte_too_many_is_too_large(encoding: str) -> None:
    with pytest.raises(BodyTooLargeError):
        decompress(ENCODED[encoding], encoding, limit=len(TEXT) - 1)


def test_a_bomb_is_refused_without_being_inflated() -> None:
    bomb = gzip.compress(bytes(300 * 1024 * 1024), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decompress(bomb, "gzip", limit=1024 * 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_body_that_ends_in_the_middle_is_broken(encoding: str, cut: int) -> None:
    with pytest.raises(BodyBrokenError):
        decompress(ENCODED[encoding][:cut], encoding, limit=len(TEXT))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_not_compressed_is_broken(encoding: str) -> None:
    with pytest.raises(BodyBrokenError):
        decompress(b"\x0a\x05hello", encoding, limit=100)
