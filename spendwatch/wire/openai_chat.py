"""OpenAI's chat completions and the many that copy them, plain and streamed, with what the copies add.

The last usage of a stream wins (some repeat a running total), wherever it stands: on its own chunk, on the finishing
one, inside a choice (Moonshot), under x_groq. A stream is over at [DONE], or, for servers that send none, once a
choice is finished and the usage has come. Legacy completions are the same with `text` for a message.
"""

import re
from typing import Any
from urllib.parse import unquote

from spendwatch import money
from spendwatch.wire import conversation, sse
from spendwatch.wire.jsonread import Run, Shape, encoded, loads, mapping, tail_object, text
from spendwatch.wire.openai_chunks import Choice, Completion, Pieces, Said, TextChunk
from spendwatch.wire.reader import MAX_ERROR_EVENTS, Reader
from spendwatch.wire.requests import read_body
from spendwatch.wire.usage import read_openai, read_timings

_MAX_CHOICES = 128
_MAX_TOOLS = 128
_MAX_BEGUN = 64


_SHAPE = Shape(Completion)
_SEVERAL = Run(Completion)
_TEXT_CHUNKS = Run(TextChunk)
_OPENING = b"data: "
_LAST = 4
"""At the end of a stream come the chunks that are not only text."""
_MAX_TRIES = 3
_LARGE = 16 * 1024
"""A chunk that can't be read and is larger than this is one that was clipped, not one that broke off."""
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')


class ChatReader(Reader):
    """Reads one chat (or legacy text) completion."""

    wire_format = "openai_chat"

    def read_request(self) -> None:
        asked = read_body(self.request.body, self.request.headers.get("content-type", ""))
        self.request_model = asked.model or deployment(self.request.path)
        self.asked_for_stream = asked.stream
        if self.fingerprints is not None:
            self.prompt = conversation.chat_prompt(asked, self.fingerprints)
        self._choices = 0
        self._usage: Any = None
        self._timings: Any = None
        self._errors = 0
        self._tries = 0
        self._pieces = Pieces(_MAX_BEGUN)
        self._told: set[int] = set()
        """The choices of which something was said."""
        self._functions: set[int] = set()
        """The choices that have asked for a function in the way before tools."""

    def document(self, data: bytes) -> None:
        completion = _SHAPE.read(data)
        if completion is None:
            self._usage = tail_object(data, "usage")
            if self.note is None:
                self.note = f"reply is no JSON object ({len(data)} bytes)"
            return
        self._take(completion, whole=True)
        if completion.choices is None:
            self._outside(completion, data)

    def block(self, block: bytes) -> None:
        found = sse.run(block, _OPENING)
        if found is None or self._tries == _MAX_TRIES:
            super().block(block)
            return
        before, data, after = found
        if self.response_id is None:
            before += _OPENING + data.pop(0) + b"\n\n"
        if before:
            super().block(before)
        common = data[:-_LAST] if data[-1][:6] == b"[DONE]" else data
        if self._more_text(common):
            del data[: len(common)]
        if data:
            super().block(_OPENING + (b"\n\n" + _OPENING).join(data) + b"\n\n")
        if after:
            super().block(after)

    def _more_text(self, data: list[bytes]) -> bool:
        """Take a run of the common chunks; False, and nothing is taken, when they are not all of the kind."""
        if not data or self.response_id is None:
            return False
        chunks = _TEXT_CHUNKS.read(data)
        if chunks is None:
            self._tries += 1
            return False
        if self.said is not None:
            self.said.text("".join([chunk.choices[0].delta.content or "" for chunk in chunks]))
        if not self._choices:
            self._choices = 1
            self._told.add(0)
        return True

    def events(self, events: list[sse.Event]) -> None:
        done = len(events) - 1 if events and events[-1][1][:6] == b"[DONE]" else len(events)
        several = _SEVERAL.read([data for _, data in events[:done]])
        if several is None:
            super().events(events)
            return
        for (name, data), completion in zip(events, several, strict=False):
            self._chunk(completion, name, data)
        if done < len(events):
            self.event(*events[done])

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        completion = _SHAPE.read(data)
        if completion is not None:
            self._chunk(completion, name, data)
        elif data.startswith(b"[DONE]"):
            self.ended = True
        elif b"}\n{" in data or b"}\n[" in data:
            # A server that leaves out the blank lines between its events.
            for line in data.split(b"\n"):
                self.event(name, line)
        else:
            usage = tail_object(data, "usage")
            reasons = _FINISH.findall(data) if len(data) > _LARGE else ()
            if reasons:
                # A whole call in one chunk, whose arguments lost their middle.
                self.finish_reasons.setdefault(0, reasons[-1].decode())
            if usage is not None:
                self._usage = usage
            elif name == b"error" and self._errors < MAX_ERROR_EVENTS:
                self._errors += 1
                self.error = (None, None)

    def closing(self) -> None:
        if self._usage is not None:
            tally = read_openai(mapping(self._usage))
            self.tally = tally
        elif self._timings is not None:
            self.tally = read_timings(mapping(self._timings))
        if self.finish_reasons and self._usage is not None:
            self.ended = True
        if self._choices > 1:
            self.attributes["choice_count"] = str(self._choices)

    def _chunk(self, completion: Completion, name: bytes, data: bytes) -> None:
        if self.response_id is not None and self._is_more_text(completion):
            return
        self._take(completion, whole=False)
        if completion.choices is None:
            self._outside(completion, data)
        if name == b"error" and self.error is None:
            self.read_error({"error": loads(data)})

    def _is_more_text(self, chunk: Completion) -> bool:
        """Take the common chunk of a stream: one choice, a piece of its text, nothing else that is new."""
        choices = chunk.choices
        if chunk.usage is not None or chunk.error is not None or not choices or len(choices) != 1:
            return False
        choice = choices[0]
        delta = choice.delta
        if choice.index != 0 or choice.finish_reason is not None or delta is None:
            return False
        if delta.content is not None and type(delta.content) is not str:
            return False
        if delta.tool_calls is not None or delta.function_call is not None:
            return False
        if choice.usage is not None or choice.error is not None:
            return False
        if chunk.x_groq is not None or chunk.base_resp is not None or chunk.cost is not None:
            return False
        if self.said is not None and delta.content:
            self.said.text(delta.content)
        if not self._choices:
            self._choices = 1
            self._told.add(0)
        return True

    def _take(self, completion: Completion, *, whole: bool) -> None:
        if completion.id and self.response_id is None:
            self.response_id = completion.id
        if completion.model:
            self.response_model = completion.model
        if completion.provider:
            self.serving_provider = completion.provider
        if completion.service_tier:
            self.service_tier = completion.service_tier
        if completion.system_fingerprint:
            self.system_fingerprint = completion.system_fingerprint
        if completion.error:
            self.read_error({"error": completion.error})
        if completion.base_resp is not None:
            self._base_response(mapping(completion.base_resp))
        if completion.cost is not None:
            # Venice puts the charge beside the usage.
            cost = completion.cost.get("usd") if isinstance(completion.cost, dict) else completion.cost
            self.cost = money.parse_cost(cost)
        if completion.timings is not None:
            self._timings = completion.timings
        usage = completion.usage
        if usage is None and completion.x_groq is not None:
            usage = mapping(completion.x_groq).get("usage")
            if mapping(completion.x_groq).get("error"):
                self.read_error(completion.x_groq)
        for choice in completion.choices or ():
            self._choice(choice, whole=whole)
            if usage is None and choice.usage is not None:
                usage = choice.usage
        if isinstance(usage, dict) and usage:
            self._usage = usage

    def _outside(self, completion: Completion, data: bytes) -> None:
        """Take an error that stands in the place of a completion, as vLLM and Mistral word it: {"object": "error"}."""
        if completion.usage is None and not completion.error:
            self.read_error(loads(data))

    def _choice(self, choice: Choice, *, whole: bool) -> None:
        index = choice.index if choice.index is not None else (self._choices if whole else 0)
        if whole and index in self.finish_reasons:
            # GitHub Copilot gives a text and a tool call as two choices of one index.
            index = self._choices
        if not 0 <= index < _MAX_CHOICES:
            return
        self._choices = max(self._choices, index + 1)
        if choice.error:
            # OpenRouter: the provider behind this choice failed.
            self.read_error({"error": choice.error})
        if choice.finish_reason:
            self.finish_reasons[index] = choice.finish_reason
        said = choice.delta
        if said is None and (whole or index not in self._told):
            # Where a stream ends with the whole message (MiniMax), all of it has been said before.
            said = choice.message
        if said is not None:
            if not whole:
                self._told.add(index)
            self._said(index, said, whole=whole)
        if choice.text and index == 0 and self.said is not None:
            self.said.text(choice.text)

    def _said(self, choice: int, said: Said, *, whole: bool) -> None:
        print_ = self.said if choice == 0 else None
        if print_ is not None and said.content:
            if isinstance(said.content, str):
                print_.text(said.content)
            else:
                for piece in conversation.texts(said.content if isinstance(said.content, list) else []):
                    print_.text(piece)
        for place, call in enumerate(said.tool_calls or ()):
            function = call.function
            name = function.name if function is not None else text(mapping(call.custom).get("name"))
            arguments = function.arguments if function is not None else mapping(call.custom).get("input")
            key, fresh = (place, True) if whole else self._pieces.of(choice, place, call, name)
            if name and fresh and len(self.tools) < _MAX_TOOLS:
                self.tools.append(name)
            if print_ is not None:
                print_.call(key, name, arguments if isinstance(arguments, str) else _encoded(arguments))
        function = said.function_call
        if function is not None:
            if function.name and choice not in self._functions and len(self.tools) < _MAX_TOOLS:
                self._functions.add(choice)
                self.tools.append(function.name)
            if print_ is not None:
                print_.call("function", function.name, _encoded(function.arguments))

    def _base_response(self, base: dict[str, Any]) -> None:
        """MiniMax answers 200 with an error inside."""
        code = base.get("status_code")
        if isinstance(code, int) and code:
            self.error = (None, str(code))


class CompletionsReader(ChatReader):
    """Reads one legacy text completion."""

    wire_format = "openai_completions"
    operation_name = "text_completion"


def _encoded(arguments: Any) -> str | bytes | None:
    """Arguments as JSON text: some servers send them as an object."""
    if arguments is None or isinstance(arguments, str):
        return arguments
    return encoded(arguments)


_NAMED_IN_PATH = re.compile(
    r"/(?:deployments|engines|azure-openai/[^/]+|serving-endpoints(?=/[^/]+/invocations))/([^/?]+)"
)


def deployment(path: str) -> str | None:
    """What a path names, for a request whose body names no model: a deployment, an engine, a served model."""
    found = _NAMED_IN_PATH.search(path)
    return unquote(found[1]) if found else None
