"""Cohere's embeddings: the usage stands in meta.billed_units, of texts and of images."""

from spendwatch.wire.cohere_chat import read_cohere
from spendwatch.wire.jsonread import mapping
from spendwatch.wire.plain import Document, PlainReader


class CohereEmbedReader(PlainReader):
    """Reads one set of embeddings."""

    wire_format = "cohere_embed"
    operation_name = "embeddings"

    def _take(self, found: Document) -> None:
        super()._take(found)
        self.tally = read_cohere(mapping(found.meta))
