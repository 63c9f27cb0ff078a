"""Speech to text, as OpenAI words it: the request is a form with a file, usage comes in tokens or in seconds."""

from spendwatch.wire.plain import PlainReader


class TranscriptionReader(PlainReader):
    """Reads one transcript."""

    wire_format = "openai_transcription"
    operation_name = "audio_transcription"
