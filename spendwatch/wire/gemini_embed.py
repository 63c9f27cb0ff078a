"""Google's embeddings: embedContent and batchEmbedContents at the Gemini API, predict at Vertex; and its like.

The Gemini API states the counts as generateContent does (older models not at all), Vertex with each embedding. Vertex's
predict also makes images, and predictLongRunning starts a video: neither states any count.
"""

from typing import Any

import msgspec

from spendwatch.wire.gemini_generate import GenerateReader, model_in_path
from spendwatch.wire.jsonread import NOT_THERE, Shape, count, mapping, tail_object
from spendwatch.wire.usage import Tally


class Embedded(msgspec.Struct, gc=False):
    """The members wanted of a reply: the vectors are passed over."""

    usageMetadata: Any = None  # noqa: N815 - the wire's name
    predictions: list["Prediction"] = []
    metadata: Any = None
    error: Any = None


class Prediction(msgspec.Struct, gc=False):
    """One result of predict."""

    embeddings: "Vector | None" = None
    bytesBase64Encoded: msgspec.Raw = NOT_THERE  # noqa: N815
    mimeType: str | None = None  # noqa: N815


class Vector(msgspec.Struct, gc=False):
    """One embedding, without its values."""

    statistics: Any = None


_SHAPE = Shape(Embedded)


class GeminiEmbedReader(GenerateReader):
    """Reads one set of embeddings."""

    wire_format = "gemini_embed"
    operation_name = "embeddings"

    def read_request(self) -> None:
        super().read_request()
        self.request_model = model_in_path(self.request.path)

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.tally = _read(mapping(tail_object(data, "usageMetadata")))
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        if found.error:
            self.read_error({"error": found.error})
        if found.usageMetadata:
            self.tally = _read(mapping(found.usageMetadata))
        for one in found.predictions:
            if one.mimeType is not None or one.bytesBase64Encoded:
                self.operation_name = "image_generation"
            if one.embeddings is not None:
                tokens = count(mapping(one.embeddings.statistics).get("token_count"))
                if tokens is not None:
                    self.tally.input_tokens = (self.tally.input_tokens or 0) + tokens
        characters = count(mapping(found.metadata).get("billableCharacterCount"))
        if characters is not None:
            self.attributes["billable_characters"] = str(characters)


class GeminiPredictReader(GeminiEmbedReader):
    """Reads one prediction at Vertex."""

    wire_format = "gemini_predict"

    def read_request(self) -> None:
        super().read_request()
        if (self.request_model or "").startswith(("imagen", "imagegeneration", "virtual-try-on")):
            self.operation_name = "image_generation"


class GeminiVideoReader(GeminiEmbedReader):
    """Reads the start of one video."""

    wire_format = "gemini_predict_long_running"
    operation_name = "video_generation"


def _read(usage: dict[str, Any]) -> Tally:
    tally = Tally(input_tokens=count(usage.get("promptTokenCount")), total_tokens=count(usage.get("totalTokenCount")))
    details = usage.get("promptTokenDetails", usage.get("promptTokensDetails"))
    for one in map(mapping, details if isinstance(details, list) else []):
        if one.get("modality") == "IMAGE":
            tally.input_image_tokens = count(one.get("tokenCount"))
        elif one.get("modality") == "AUDIO":
            tally.input_audio_tokens = count(one.get("tokenCount"))
    return tally
