"""Serving a generation: the two wire formats, OpenRouter's own (/api/v1) and the direct providers' (/v1)."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from tests.fakes.openrouter import chat, messages, models
from tests.fakes.openrouter.http import Receive, Request, Send, answer, stream
from tests.fakes.openrouter.script import Script, script_of
from tests.fakes.openrouter.served import Money, Served
from tests.fakes.openrouter.world import MANAGEMENT_KEY, Generation, World, key_hash


class Refused(Exception):
    """The request gets this error instead of an answer."""

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


class Inference:
    """Answers POST …/chat/completions and …/messages."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.queued: dict[str, list[Script]] = {}
        """Scripts for the next requests, by model; "" for any."""

    async def __call__(self, request: Request, send: Send, receive: Receive) -> None:
        """Serve one request. Raises Refused."""
        routed = request.path.startswith("/api/")
        anthropic = request.path.endswith("/messages")
        try:
            body: dict[str, Any] = msgspec.json.decode(request.body, type=dict[str, Any])
            script = script_of(body) or self._next(str(body.get("model", "")))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Refused(400, f"the body can't be read: {error}") from error
        if script.error is not None and script.error.after_chunks is None:
            raise Refused(script.error.status, script.error.message, script.error.retry_after_s)
        at = self._moment(request)
        generation: Generation | None = None
        if routed:
            generation = self._generate(request, body, script, at)
            served = self._routed(generation, script)
        else:
            served = self._direct(body, script, at, anthropic=anthropic)
        headers = {"x-generation-id": served.id} if routed else {"request-id": f"req_{uuid.uuid4().hex[:16]}"}
        if body.get("stream"):
            await self._stream(served, body, generation, send, receive, headers, anthropic=anthropic)
        else:
            await answer(send, 200, messages.message(served) if anthropic else chat.completion(served), headers)

    def _next(self, model: str) -> Script:
        for queue in (self.queued.get(model), self.queued.get("")):
            if queue:
                return queue.pop(0)
        return Script()

    @staticmethod
    def _moment(request: Request) -> datetime:
        placed = request.headers.get("x-demo-time")
        return datetime.fromisoformat(placed).astimezone(UTC) if placed else datetime.now(UTC)

    def _generate(self, request: Request, body: dict[str, Any], script: Script, at: datetime) -> Generation:
        secret = request.secret or ""
        if secret == MANAGEMENT_KEY:
            raise Refused(403, "Management keys cannot be used for inference")
        if not secret.startswith("sk-or-"):
            raise Refused(401, "No cookie auth credentials found")
        key = self._world.key(secret)
        if key.disabled:
            raise Refused(403, "This key is disabled")
        name = str(body.get("model", ""))
        model = models.find(name)
        if model is None:
            raise Refused(400, f"{name} is not a valid model ID")
        try:
            endpoint = model.endpoint(script.provider)
        except LookupError as error:
            raise Refused(404, str(error)) from error
        generation = self._world.generate(
            model=model,
            endpoint=endpoint,
            key=key,
            tokens=script.counts(body),
            at=at,
            byok=script.byok,
            streamed=bool(body.get("stream")),
        )
        generation.finish_reason = script.finish_reason or ("tool_calls" if script.tool_calls else "stop")
        self._world.keep(generation)
        return generation

    @staticmethod
    def _routed(generation: Generation, script: Script) -> Served:
        model = models.find(generation.model)
        assert model is not None
        prompt_only = msgspec.structs.replace(generation.said.tokens, completion=0, reasoning=0)
        prompt_cost = models.cost(model, model.endpoint(generation.provider_name), prompt_only)
        return Served(
            id=generation.id,
            created=int(generation.created_at.timestamp()),
            model=generation.permaslug if script.dated_model else generation.model,
            provider=generation.provider_name,
            tokens=generation.said.tokens,
            script=script,
            money=Money(
                usage=generation.said.usage,
                upstream=generation.upstream,
                upstream_prompt=min(prompt_cost, generation.upstream) if generation.upstream else Decimal(0),
                is_byok=generation.is_byok,
            ),
        )

    @staticmethod
    def _direct(body: dict[str, Any], script: Script, at: datetime, *, anthropic: bool) -> Served:
        name = str(body.get("model", ""))
        return Served(
            id=f"msg_{uuid.uuid4().hex[:24]}" if anthropic else f"chatcmpl-{uuid.uuid4().hex[:24]}",
            created=int(at.timestamp()),
            model=name,
            provider=None,
            tokens=script.counts(body),
            script=script,
            money=None,
        )

    async def _stream(
        self,
        served: Served,
        body: dict[str, Any],
        generation: Generation | None,
        send: Send,
        receive: Receive,
        headers: dict[str, str],
        *,
        anthropic: bool,
    ) -> None:
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        if anthropic:
            events = messages.events(served)
        else:
            events = chat.events(served, with_usage=generation is not None or wants_usage)
        failure, cut = served.script.error, served.script.cut_after
        if failure is not None and failure.after_chunks is not None:
            shape = messages if anthropic else chat
            events = [*events[: failure.after_chunks], shape.stream_error(served, failure.status, failure.message)]
            if generation is not None:
                generation.finish_reason = "error"
        if cut is not None:
            events = events[:cut]
        stayed = await stream(
            send, receive, events, headers=headers, delay_s=served.script.chunk_delay_s, whole=cut is None
        )
        if generation is not None:
            # A provider that can't cancel bills what it made, whoever is left to read it.
            generation.cancelled = not stayed
            self._world.keep(generation)


def hash_of(request: Request) -> str | None:
    """The hash of the key that a request carries."""
    return key_hash(request.secret) if request.secret else None
