"""What the store answers when it can't do what was asked: ClickHouse's error code, its HTTP status and its text.

Clients decide by `X-ClickHouse-Exception-Code` and by the words after `DB::Exception:`, so both are kept as the engine
wrote them. The table of statuses is ClickHouse's own (its exceptionCodeToHTTPStatus).
"""

import re

AUTHENTICATION_FAILED = 516
BAD_ARGUMENTS = 36
QUERY_IS_TOO_LARGE = 229
QUERY_WAS_CANCELLED = 394
READONLY = 164
SESSION_IS_LOCKED = 373
SESSION_NOT_FOUND = 372
SOCKET_TIMEOUT = 209
SYNTAX_ERROR = 62
TOO_MANY_SIMULTANEOUS_QUERIES = 202
ACCESS_DENIED = 497
UNKNOWN_COMPRESSION_METHOD = 89
UNKNOWN_EXCEPTION = 1002
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
CANNOT_DECOMPRESS = 271
INCORRECT_DATA = 117
SET_NON_GRANTED_ROLE = 512
NOT_IMPLEMENTED = 48

NAMES = {
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    QUERY_IS_TOO_LARGE: "QUERY_IS_TOO_LARGE",
    QUERY_WAS_CANCELLED: "QUERY_WAS_CANCELLED",
    READONLY: "READONLY",
    SESSION_IS_LOCKED: "SESSION_IS_LOCKED",
    SESSION_NOT_FOUND: "SESSION_NOT_FOUND",
    SOCKET_TIMEOUT: "SOCKET_TIMEOUT",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    ACCESS_DENIED: "ACCESS_DENIED",
    UNKNOWN_COMPRESSION_METHOD: "UNKNOWN_COMPRESSION_METHOD",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
    CANNOT_DECOMPRESS: "CANNOT_DECOMPRESS",
    INCORRECT_DATA: "INCORRECT_DATA",
    SET_NON_GRANTED_ROLE: "SET_NON_GRANTED_ROLE",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
}

_FORBIDDEN = (192, 193, AUTHENTICATION_FAILED, SET_NON_GRANTED_ROLE, ACCESS_DENIED)
_BAD_REQUEST = (
    *(6, 10, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 69, 72, 117, 223, 376, 427, 441, 675, 676),
    *(147, 167, 168, 125, 678),
)
_NOT_FOUND = (42, 46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336, 511)
_STATUS = {
    194: 401,
    QUERY_IS_TOO_LARGE: 413,
    NOT_IMPLEMENTED: 501,
    SOCKET_TIMEOUT: 503,
    76: 503,
    TOO_MANY_SIMULTANEOUS_QUERIES: 503,
    159: 408,
    439: 503,
    779: 415,
    **dict.fromkeys(_FORBIDDEN, 403),
    **dict.fromkeys(_BAD_REQUEST, 400),
    **dict.fromkeys(_NOT_FOUND, 404),
}

_CODE = re.compile(r"Code: (\d+)\. ")


class Refusal(Exception):  # noqa: N818  # an answer to a client, not a failure of the store
    """A request that the store or its engine refused. code: ClickHouse's number; text: ClickHouse's full line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def status(self) -> int:
        """The HTTP status ClickHouse gives this code."""
        return _STATUS.get(self.code, 500)


def refusal(code: int, message: str) -> Refusal:
    """The store's own refusal, in the engine's form."""
    return Refusal(code, f"Code: {code}. DB::Exception: {message} ({NAMES[code]})")


def from_engine(error: Exception) -> Refusal:
    """What the engine raised: its code and its line, without what the binding wrote in front of them."""
    text = str(error)
    found = _CODE.search(text)
    if found is None:
        return refusal(UNKNOWN_EXCEPTION, text or type(error).__name__)
    return Refusal(int(found[1]), text[found.start() :])
