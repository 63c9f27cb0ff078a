"""Deepgram's speech: transcriptions (listen) and recordings (speak). Billed by seconds and characters, never tokens.

The model is named in the query, not by a version that a price table knows, so it is kept as an attribute.
"""

from typing import Any
from urllib.parse import parse_qs

import msgspec

from spendwatch import money
from spendwatch.wire.jsonread import Shape, mapping
from spendwatch.wire.reader import Reader


class Heard(msgspec.Struct, gc=False):
    """The members wanted of a transcription."""

    metadata: Any = None


_SHAPE = Shape(Heard)


class DeepgramListenReader(Reader):
    """Reads one transcription."""

    wire_format = "deepgram_listen"
    operation_name = "audio_transcription"

    def read_request(self) -> None:
        asked = parse_qs(self.request.path.partition("?")[2]).get("model")
        if asked:
            self.attributes["model"] = asked[0]

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        seconds = money.parse(mapping(found.metadata).get("duration"))
        if seconds is not None:
            self.attributes["audio_seconds"] = money.text(seconds)


class DeepgramSpeakReader(DeepgramListenReader):
    """Reads one recording."""

    wire_format = "deepgram_speak"
    operation_name = "audio_speech"

    def unread(self) -> None:
        """A recording is what was asked for."""
