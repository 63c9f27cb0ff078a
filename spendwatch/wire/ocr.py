"""Reading documents (Mistral's OCR): billed by the page, without tokens: docs.mistral.ai/api, "OCR"."""

from typing import Any

import msgspec

from spendwatch.wire.jsonread import Shape, count, mapping, tail_object, text
from spendwatch.wire.plain import PlainReader


class Read(msgspec.Struct):
    """The members wanted of a reply: the pages are passed over."""

    id: str | None = None
    model: str | None = None
    usage_info: Any = None


_SHAPE = Shape(Read)


class OcrReader(PlainReader):
    """Reads one reading."""

    wire_format = "ocr"
    operation_name = "ocr"

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        used = mapping(found.usage_info if found is not None else tail_object(data, "usage_info"))
        if found is not None:
            self.response_id = text(found.id)
            self.response_model = text(found.model)
        elif self.note is None:
            self.note = f"reply is no JSON object ({len(data)} bytes)"
        pages = count(used.get("pages_processed"))
        if pages is not None:
            self.attributes["pages"] = str(pages)
