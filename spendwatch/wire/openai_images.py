"""Images made or edited, as OpenAI words them, and OpenRouter's /images."""

from spendwatch.wire.plain import PlainReader


class ImagesReader(PlainReader):
    """Reads one set of images."""

    wire_format = "openai_images"
    operation_name = "image_generation"
