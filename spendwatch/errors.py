"""The errors of spendwatch.

    SpendwatchError
    ├── ConfigError          a setting is missing or wrong; raised where the setting is read, never during a call
    ├── ReadError            a document (reply, statement, span) is not what its format promises
    └── OutsideError         another system failed; `permanent` tells whether trying again can help
        ├── StoreError       ClickHouse refused or could not be reached
        ├── CollectError     a statement source refused or could not be reached
        └── DeliveryError    a channel refused or could not be reached

Disagreement between numbers is never an exception: it is a variance, a value to show.
A message says what was expected, what was found and what to do.
"""


class SpendwatchError(Exception):
    """The root: everything spendwatch raises on purpose."""


class ConfigError(SpendwatchError):
    """A setting is missing or wrong."""


class ReadError(SpendwatchError):
    """A document is not what its format promises."""


class OutsideError(SpendwatchError):
    """Another system failed.

    permanent: trying the same again can't succeed. retry_after_s: seconds the other side asked us to wait, None if
    it did not say.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class StoreError(OutsideError):
    """ClickHouse refused or could not be reached."""


class CollectError(OutsideError):
    """A statement source refused or could not be reached."""


class DeliveryError(OutsideError):
    """A channel refused or could not be reached."""
