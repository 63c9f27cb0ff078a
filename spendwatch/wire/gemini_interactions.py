"""Google's Interactions API, plain and streamed.

Input is the prompt plus what tools added to it, output is the answer plus the thoughts, which the wire counts apart.
A stream repeats the interaction at its end, with the counts: ai.google.dev/api/interactions-api.
"""

from typing import Any

import msgspec

from spendwatch.wire import conversation, prompts
from spendwatch.wire.gemini_generate import GenerateReader
from spendwatch.wire.jsonread import Shape, count, encoded, loads, mapping, tail_object, text
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import Tally, read_cost

_MAX_TOOLS = 256
_OVER = ("interaction.completed", "interaction.complete", "interaction.failed", "interaction.cancelled")


class Interaction(msgspec.Struct, gc=False):
    """A whole interaction; in a stream also the envelope of every event."""

    event_type: str | None = None
    id: str | None = None
    model: str | None = None
    status: str | None = None
    steps: list[Any] | None = None
    outputs: list[Any] | None = None
    usage: Any = None
    service_tier: str | None = None
    error: Any = None
    index: int | None = None
    step: Any = None
    content: Any = None
    delta: Any = None
    interaction: "Interaction | None" = None
    metadata: Any = None


_SHAPE = Shape(Interaction)


class InteractionsReader(GenerateReader):
    """Reads one interaction."""

    wire_format = "gemini_interactions"
    operation_name = "chat"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model
        self.asked_for_stream = asked.stream
        self._server_tools: list[str] = []
        if self.fingerprints is not None and "input" in asked.parts:
            body = mapping(loads(self.request.body or b""))
            system = text(body.get("system_instruction"))
            self.prompt = prompts.message_prompt(
                _turns(body.get("input")), [system] if system is not None else [], self.fingerprints
            )

    def document(self, data: bytes) -> None:
        found = _SHAPE.read(data)
        if found is None:
            usage = tail_object(data, "usage")
            if usage is not None:
                self.tally = read_interaction(mapping(usage))
            self.note = self.note or f"reply is no JSON object ({len(data)} bytes)"
            return
        self._interaction(found, whole=True)

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        found = _SHAPE.read(data)
        if found is None:
            usage = tail_object(data, "usage")
            if usage is not None:
                self.tally = read_interaction(mapping(usage))
            return
        kind = found.event_type or name.decode("utf-8", "replace")
        if found.error or kind == "error":
            self.read_error(loads(data) if found.error else {"error": loads(data)})
        sofar = mapping(found.metadata).get("usage")
        if sofar:
            # The counts up to here: all that a stream left early has told.
            self.tally = read_interaction(mapping(sofar))
        if found.interaction is not None:
            self.ended = self.ended or kind in _OVER
            self._interaction(found.interaction, whole=False)
        elif kind in ("step.start", "content.start"):
            self._step(found.index, mapping(found.step or found.content))
        elif found.delta is not None:
            self._delta(found.index, mapping(found.delta))

    def closing(self) -> None:
        if self._server_tools:
            self.attributes["server_tools"] = ",".join(self._server_tools)

    def _interaction(self, found: Interaction, *, whole: bool) -> None:
        self.response_id = found.id or self.response_id
        self.response_model = found.model or self.response_model
        self.service_tier = found.service_tier or self.service_tier
        if found.status:
            self.finish_reasons[0] = found.status
        if found.usage:
            self.tally = read_interaction(mapping(found.usage))
        if found.error:
            self.read_error({"error": found.error})
        if whole:
            for place, step in enumerate(found.steps or found.outputs or ()):
                self._step(place, mapping(step))

    def _step(self, place: int | None, step: dict[str, Any]) -> None:
        kind = text(step.get("type")) or ""
        name = text(step.get("name"))
        if kind == "function_call" and name is not None:
            if len(self.tools) < _MAX_TOOLS:
                self.tools.append(name)
            if self.said is not None:
                given = step.get("arguments")
                self.said.call(place, name, encoded(given) if given else None)
        elif kind.endswith("_call") and len(self._server_tools) < _MAX_TOOLS:
            self._server_tools.append(name or kind.removesuffix("_call"))
        elif kind in ("model_output", "text") and self.said is not None:
            content = step.get("content")
            for piece in conversation.texts(content if isinstance(content, list) else [step]):
                self.said.text(piece)

    def _delta(self, place: int | None, delta: dict[str, Any]) -> None:
        if self.said is None:
            return
        kind = delta.get("type")
        if kind == "text" and isinstance(delta.get("text"), str):
            self.said.text(delta["text"])
        elif kind in ("arguments", "arguments_delta", "function_call"):
            given = delta.get("arguments", delta.get("partial_arguments"))
            if isinstance(given, str):
                self.said.call(place, None, given)
            elif given is not None:
                self.said.call(place, None, encoded(given))


def _turns(given: Any) -> list[dict[str, Any]]:
    """The steps of an input in OpenAI's form: a text, contents, or steps that hold contents."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    turns: list[dict[str, Any]] = []
    for step in map(mapping, given if isinstance(given, list) else [given]):
        kind = step.get("type")
        content = step.get("content")
        role = text(step.get("role")) or ("model" if kind in ("model_output", "function_call") else "user")
        role = "assistant" if role == "model" else role
        for part in map(mapping, content if isinstance(content, list) else [step]):
            inner = part.get("type")
            if inner == "function_result":
                result = encoded(part.get("result"), in_order=True).decode()
                turns.append({"role": "tool", "content": result})
            elif inner == "function_call":
                call = {"name": part.get("name"), "arguments": _json(part.get("arguments"))}
                turns.append({"role": "assistant", "tool_calls": [{"function": call}]})
            elif inner == "thought":
                continue
            elif turns and turns[-1]["role"] == role and isinstance(turns[-1].get("content"), list):
                turns[-1]["content"].append(part)
            else:
                turns.append({"role": role, "content": [part]})
    return turns


def _json(value: Any) -> str:
    return encoded(value).decode()


def read_interaction(usage: dict[str, Any]) -> Tally:
    """An interaction's usage object. Of its modalities those are kept that have a price of their own."""
    tally = Tally(
        input_tokens=_sum(usage, "total_input_tokens", "total_tool_use_tokens"),
        output_tokens=_sum(usage, "total_output_tokens", "total_thought_tokens"),
        total_tokens=count(usage.get("total_tokens")),
        cache_read_input_tokens=count(usage.get("total_cached_tokens")),
        reasoning_output_tokens=count(usage.get("total_thought_tokens")),
        input_audio_tokens=_modality(usage.get("input_tokens_by_modality"), "audio"),
        output_audio_tokens=_modality(usage.get("output_tokens_by_modality"), "audio"),
        output_image_tokens=_modality(usage.get("output_tokens_by_modality"), "image"),
    )
    read_cost(usage, tally)
    return tally


def _sum(usage: dict[str, Any], *names: str) -> int | None:
    found = [number for number in (count(usage.get(name)) for name in names) if number is not None]
    return sum(found) if found else None


def _modality(details: Any, name: str) -> int | None:
    for one in map(mapping, details if isinstance(details, list) else []):
        if str(one.get("modality")).lower() == name:
            return count(one.get("tokens"))
    return None
