"""Exchanges with an LLM provider that are no inference: counting tokens, submitting and fetching batches.

They carry models, ids and even usage objects, and must never be booked as spend.
"""

from spendwatch.wire.reader import Reader


class NotInferenceReader(Reader):
    """Reads nothing but the outcome."""

    wire_format = "not_inference"
    operation_name = "other"
    is_inference = False

    def read_request(self) -> None:
        self.said = None

    def unread(self) -> None:
        """Nothing here was meant to be read."""


class CountTokensReader(NotInferenceReader):
    """A token count."""

    operation_name = "count_tokens"


class BatchReader(NotInferenceReader):
    """A batch job: its lines are billed when the provider has worked them off, not by this exchange."""

    operation_name = "batch"
