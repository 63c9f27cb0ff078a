"""Text to speech, as OpenAI words it: the reply is sound and carries no usage."""

from spendwatch.wire.plain import PlainReader


class SpeechReader(PlainReader):
    """Reads one recording."""

    wire_format = "openai_speech"
    operation_name = "audio_speech"
