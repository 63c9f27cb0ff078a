"""Reranking, as Cohere words it and others after it: billed by search unit or by token."""

from spendwatch.wire.plain import PlainReader


class RerankReader(PlainReader):
    """Reads one ranking."""

    wire_format = "rerank"
    operation_name = "rerank"
    total_is_input = True
