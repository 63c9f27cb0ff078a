"""Moderation, as OpenAI words it: free of charge, and without usage."""

from spendwatch.wire.plain import PlainReader


class ModerationsReader(PlainReader):
    """Reads one judgement."""

    wire_format = "openai_moderations"
    operation_name = "moderation"
