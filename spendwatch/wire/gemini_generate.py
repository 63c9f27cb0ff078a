"""Google's generateContent, plain and streamed, at the Gemini API and at Vertex.

Input is the prompt plus what tool results added to it; output is candidates plus thoughts, which the wire counts apart.
In a stream every chunk repeats the counts so far: the last ones win. Without alt=sse a stream is one JSON array, read
as the document it is. A blocked prompt has no candidate, and that is the answer: ai.google.dev/api/generate-content.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec

from spendwatch.fingerprint import Fingerprinter, Message, PromptPrint
from spendwatch.wire import conversation
from spendwatch.wire.jsonread import Shape, count, encoded, loads, mapping, tail_object, text
from spendwatch.wire.reader import Reader
from spendwatch.wire.usage import Tally, read_cost

_MAX_CANDIDATES = 128
_MAX_TOOLS = 256


class Content(msgspec.Struct, gc=False):
    """What a candidate says."""

    parts: list[Any] | None = None


class Candidate(msgspec.Struct, gc=False):
    """One candidate."""

    index: int | None = None
    content: Content | None = None
    finishReason: Any = None  # noqa: N815 - the wire's name
    groundingMetadata: Any = None  # noqa: N815
    urlContextMetadata: Any = None  # noqa: N815


class Generated(msgspec.Struct, gc=False):
    """A whole reply, or one chunk of a streamed one."""

    candidates: list[Candidate] | None = None
    usageMetadata: Any = None  # noqa: N815
    modelVersion: str | None = None  # noqa: N815
    responseId: str | None = None  # noqa: N815
    promptFeedback: Any = None  # noqa: N815
    error: Any = None


class Body(msgspec.Struct, gc=False):
    """The members wanted of a request."""

    model: Any = None
    contents: list[msgspec.Raw] | None = None
    systemInstruction: Any = None  # noqa: N815
    system_instruction: Any = None
    tools: Any = None


_SHAPE = Shape(Generated)
_BODY = Shape(Body)
_LOOSE = json.JSONDecoder(strict=False)
# With enum-encoding=int modalities come as numbers: ai.google.dev/api/generate-content#Modality.
_MODALITIES = {2: "IMAGE", 4: "AUDIO"}


class GenerateReader(Reader):
    """Reads one generateContent exchange."""

    wire_format = "gemini_generate"
    operation_name = "generate_content"

    def read_request(self) -> None:
        read = _BODY.read(self.request.body) if self.request.body else None
        self.request_model = (text(read.model) if read is not None else None) or model_in_path(self.request.path)
        self.asked_for_stream = ":streamGenerateContent" in self.request.path
        self._usage: dict[str, Any] = {}
        self._candidates = 0
        self._server_tools: list[str] = []
        if self.fingerprints is not None and read is not None and read.contents:
            self.prompt = _prompt(read, read.contents, self.fingerprints)

    def document(self, data: bytes) -> None:
        if data[:1] == b"[":
            self.array_stream = True
            self._array(data)
            return
        found = _SHAPE.read(data)
        if found is None:
            self._usage = mapping(tail_object(data, "usageMetadata"))
            if self.note is None:
                self.note = f"reply is no JSON object ({len(data)} bytes)"
            return
        self._take(found)

    def _array(self, data: bytes) -> None:
        """A stream as one array; of one that broke off, the elements before the break."""
        parts = loads(data)
        for part in map(encoded, parts) if isinstance(parts, list) else _whole_ones(data):
            found = _SHAPE.read(part)
            if found is not None:
                self._take(found)

    def event(self, name: bytes, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is not None:
            self._take(found)
        elif name == b"error":
            self.error = self.error or (None, None)

    def closing(self) -> None:
        if self.finish_reasons:
            self.ended = True
        if self._usage:
            self.tally = read_gemini(self._usage)
            read_cost(self._usage, self.tally)
            tally = self.tally
            if tally.output_tokens is None and None not in (tally.total_tokens, tally.input_tokens) and self.ended:
                # Zero counts are left out of the JSON; a finished reply without output says so by its total.
                tally.output_tokens = max((tally.total_tokens or 0) - (tally.input_tokens or 0), 0)
        if self._candidates > 1:
            self.attributes["choice_count"] = str(self._candidates)
        if self._server_tools:
            self.attributes["server_tools"] = ",".join(self._server_tools)

    def _take(self, found: Generated) -> None:
        self.response_id = found.responseId or self.response_id
        self.response_model = found.modelVersion or self.response_model
        if found.error:
            self.read_error({"error": found.error})
        used = mapping(found.usageMetadata)
        if used and self._usage and not any(name.endswith("TokenCount") for name in used):
            # Vertex: a chunk may tell of the traffic alone.
            used = {**self._usage, **used}
        self._usage = used or self._usage
        blocked = mapping(found.promptFeedback).get("blockReason")
        if isinstance(blocked, str | int):
            self.ended = True
            self.attributes["block_reason"] = str(blocked)
        for place, candidate in enumerate(found.candidates or ()):
            index = candidate.index if candidate.index is not None else place
            if not 0 <= index < _MAX_CANDIDATES:
                continue
            self._candidates = max(self._candidates, index + 1)
            if candidate.finishReason:
                self.finish_reasons[index] = str(candidate.finishReason)
            if candidate.groundingMetadata:
                self._grounding(mapping(candidate.groundingMetadata))
            if mapping(candidate.urlContextMetadata).get("urlMetadata"):
                self._ran("url_context")
            for part in (candidate.content.parts if candidate.content is not None else None) or ():
                self._part(index, mapping(part))

    def _ran(self, tool: str, *, again: bool = False) -> None:
        """again: whether another mention is another run, not the same one in a later chunk."""
        if len(self._server_tools) < _MAX_TOOLS and (again or tool not in self._server_tools):
            self._server_tools.append(tool)

    def _grounding(self, grounding: dict[str, Any]) -> None:
        queries = grounding.get("webSearchQueries")
        if isinstance(queries, list) and queries:
            self._ran("google_search")
            self.attributes["web_searches"] = str(len(queries))

    def _part(self, index: int, part: dict[str, Any]) -> None:
        call = mapping(part.get("functionCall") or part.get("function_call"))
        name = text(call.get("name"))
        if name is not None and len(self.tools) < _MAX_TOOLS:
            self.tools.append(name)
            if self.said is not None and index == 0:
                self.said.call(len(self.tools), name, encoded(call.get("args") or {}))
        elif "executableCode" in part:
            self._ran("code_execution", again=True)
        elif "toolCall" in part:
            # GOOGLE_SEARCH_WEB, URL_CONTEXT, GOOGLE_MAPS, FILE_SEARCH.
            kind = text(mapping(part["toolCall"]).get("toolType")) or "tool"
            self._ran(kind.lower().removesuffix("_web"), again=True)
        elif self.said is not None and index == 0 and not part.get("thought") and isinstance(part.get("text"), str):
            self.said.text(part["text"])


def _whole_ones(data: bytes) -> Iterator[bytes]:
    """The objects of an array up to where it breaks off."""
    said = data.decode("utf-8", "replace")
    end = 0
    while (start := said.find("{", end)) >= 0:
        try:
            _, end = _LOOSE.raw_decode(said, start)
        except (ValueError, RecursionError):
            return
        yield said[start:end].encode("utf-8", "replace")


def _prompt(read: Body, contents: list[msgspec.Raw], fingerprints: Fingerprinter) -> PromptPrint:
    system = mapping(read.systemInstruction or read.system_instruction).get("parts")
    backwards = [_message(mapping(loads(bytes(raw)))) for raw in reversed(contents[-2:])]
    return fingerprints.prompt(
        system=conversation.texts(system if isinstance(system, list) else []),
        prefix=[b",".join(contents[:-1])],
        last=backwards[::-1],
        messages=len(contents),
    )


def read_gemini(usage: dict[str, Any]) -> Tally:
    """A usageMetadata object."""
    tally = Tally()
    tally.input_tokens = _sum(usage, "promptTokenCount", "toolUsePromptTokenCount")
    tally.output_tokens = _sum(usage, "candidatesTokenCount", "thoughtsTokenCount", "responseTokenCount")
    tally.total_tokens = count(usage.get("totalTokenCount"))
    tally.cache_read_input_tokens = count(usage.get("cachedContentTokenCount"))
    tally.reasoning_output_tokens = count(usage.get("thoughtsTokenCount"))
    _balance(tally)
    tally.input_audio_tokens = _modality(usage.get("promptTokensDetails"), "AUDIO")
    tally.input_image_tokens = _modality(usage.get("promptTokensDetails"), "IMAGE")
    tally.output_audio_tokens = _modality(usage.get("candidatesTokensDetails"), "AUDIO")
    tally.output_image_tokens = _modality(usage.get("candidatesTokensDetails"), "IMAGE")
    tier = text(usage.get("serviceTier"))
    if tier is None:
        # Vertex: ON_DEMAND, ON_DEMAND_PRIORITY, ON_DEMAND_FLEX, PROVISIONED_THROUGHPUT.
        traffic = text(usage.get("trafficType")) or ""
        tier = traffic.removeprefix("ON_DEMAND").removeprefix("_").lower() or None
    tally.service_tier = tier
    return tally


def _balance(tally: Tally) -> None:
    """Some models' candidates include their thoughts, some of Vertex's prompts leave out what was cached.

    The grand total says so: github.com/BerriAI/litellm/pull/42093, and is_candidate_token_count_inclusive there.
    """
    given, made, total = tally.input_tokens, tally.output_tokens, tally.total_tokens
    if given is None:
        return
    thoughts, cached = tally.reasoning_output_tokens or 0, tally.cache_read_input_tokens or 0
    if made is not None and thoughts and total == given + made - thoughts:
        tally.output_tokens = made - thoughts
    elif cached and (cached > given or total == given + (made or 0) + cached):
        tally.input_tokens = given + cached


def _sum(usage: dict[str, Any], *names: str) -> int | None:
    found = [number for number in (count(usage.get(name)) for name in names) if number is not None]
    return sum(found) if found else None


def _modality(details: Any, name: str) -> int | None:
    for one in details if isinstance(details, list) else []:
        kind = mapping(one).get("modality")
        if (_MODALITIES.get(kind) if type(kind) is int else kind) == name:
            return count(mapping(one).get("tokenCount"))
    return None


def _message(content: dict[str, Any]) -> Message:
    """One content of a request in the common form."""
    role = text(content.get("role")) or "user"
    message = Message(role="assistant" if role == "model" else role)
    parts = content.get("parts")
    for part in parts if isinstance(parts, list) else []:
        piece = mapping(part)
        call = mapping(piece.get("functionCall") or piece.get("function_call"))
        answer = mapping(piece.get("functionResponse") or piece.get("function_response"))
        if call:
            message.calls.append((text(call.get("name")) or "", encoded(call.get("args"))))
        elif answer:
            message.role = "tool"
            message.texts.append(encoded(answer.get("response"), in_order=True).decode())
        elif isinstance(piece.get("text"), str) and not piece.get("thought"):
            message.texts.append(piece["text"])
        elif piece and not piece.get("thought"):
            data = mapping(piece.get("inlineData") or piece.get("inline_data") or piece.get("fileData"))
            message.media.append(str(data.get("data") or data.get("fileUri") or "media"))
    return message


def model_in_path(path: str) -> str | None:
    """The model of .../models/gemini-2.5-flash:generateContent, or the tuned one of .../endpoints/1:generateContent."""
    named, found, _ = path.partition("?")[0].rpartition(":")
    kind, _, name = named.rpartition("/")
    kind = kind.rpartition("/")[2]
    return text(unquote(name if kind == "models" or not name else f"{kind}/{name}")) if found else None
