"""OpenAI's form as some of Bedrock's vendors write it: Mistral's larger models and DeepSeek's name a choice's end
`stop_reason`: docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-mistral-chat-completion.html.
"""

import msgspec

from spendwatch.wire.jsonread import Shape
from spendwatch.wire.openai_chat import ChatReader

MAX_CHOICES = 128


class Stopped(msgspec.Struct, gc=False):
    """A choice that says why it ended under Amazon's name for it."""

    stop_reason: str | None = None


class Choices(msgspec.Struct, gc=False):
    """An OpenAI-shaped body, for what is not OpenAI's in it."""

    choices: list[Stopped] | None = None


_CHOICES = Shape(Choices)


class ChoicesReader(ChatReader):
    """OpenAI's form as Mistral's and DeepSeek's models at Bedrock write it: with a stop_reason."""

    def document(self, data: bytes) -> None:
        super().document(data)
        self._stops(data)

    def event(self, name: bytes, data: bytes) -> None:
        super().event(name, data)
        self._stops(data)

    def _stops(self, data: bytes) -> None:
        found = _CHOICES.read(data) if b'"stop_reason"' in data else None
        for place, choice in enumerate((found.choices if found is not None else None) or ()):
            if choice.stop_reason and place < MAX_CHOICES:
                self.finish_reasons.setdefault(place, choice.stop_reason)
