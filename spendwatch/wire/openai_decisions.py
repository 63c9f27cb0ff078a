"""Decisions, as OpenAI words them: questions about an input, each answered with a choice, a score or a probability."""

from spendwatch.wire.plain import PlainReader


class DecisionsReader(PlainReader):
    """Reads the answers to one set of questions."""

    wire_format = "openai_decisions"
    operation_name = "decision"
