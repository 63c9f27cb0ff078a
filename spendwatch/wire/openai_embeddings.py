"""Embeddings, as OpenAI words them and most others after it."""

from spendwatch.wire.plain import PlainReader


class EmbeddingsReader(PlainReader):
    """Reads one list of embeddings."""

    wire_format = "openai_embeddings"
    operation_name = "embeddings"
    total_is_input = True
