"""The floor: about the least that a hook can do and still know what a call was. A yardstick, not a product.

Bytes pass by and the last two pieces are remembered; of those the last usage object is cut out and parsed alone; one
OpenTelemetry span with 15 attributes is made. It trusts the provider's form, prices one model, reads no errors, no
prints and no privacy, and loses what ends early.
"""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from opentelemetry import trace

_loads = msgspec.json.decode


class Floor:
    """The hook on the sync transports of httpx-like modules."""

    def __init__(self, modules: list[Any], provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("floor")
        self._modules = modules
        self._originals = [module.HTTPTransport.handle_request for module in modules]

    def install(self) -> None:
        """Put it in."""
        for module, original in zip(self._modules, self._originals, strict=True):
            module.HTTPTransport.handle_request = self._hook(original, self._body(module))

    def remove(self) -> None:
        """Take it out."""
        for module, original in zip(self._modules, self._originals, strict=True):
            module.HTTPTransport.handle_request = original

    @staticmethod
    def _hook(original: Any, body: Any) -> Any:
        def handle_request(transport: Any, request: Any) -> Any:
            begun = time.time_ns()
            response = original(transport, request)
            response.stream = body(response.stream, request, response.status_code, begun)
            return response

        return handle_request

    def _body(self, module: Any) -> Any:
        record = self._record

        class Body(module.SyncByteStream):  # type: ignore[misc]
            def __init__(self, stream: Any, request: Any, status: int, begun: int) -> None:
                self.stream, self.request, self.status, self.begun = stream, request, status, begun
                self.first = self.last = self.before = b""

            def __iter__(self) -> Iterator[bytes]:
                for piece in self.stream:
                    self.first = self.first or piece
                    self.before, self.last = self.last, piece
                    yield piece

            def close(self) -> None:
                self.stream.close()
                record(self)

        return Body

    def _record(self, seen: Any) -> None:
        end = seen.before + seen.last
        at = end.rfind(b'"usage":{')
        usage = _loads(end[at + 8 : _closing(end, at + 8)]) if at >= 0 else {}
        inside = usage.get("prompt_tokens_details") or usage
        outside = usage.get("completion_tokens_details") or usage
        spent = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        made = usage.get("completion_tokens") or usage.get("output_tokens") or 0
        body = seen.request.content
        model = _model(body[-200:] if len(body) > 100_000 else body)
        span = self._tracer.start_span(
            f"chat {model}",
            start_time=seen.begun,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": model,
                "gen_ai.response.model": _model(seen.first),
                "gen_ai.usage.input_tokens": spent,
                "gen_ai.usage.output_tokens": made,
                "gen_ai.usage.cache_read.input_tokens": inside.get("cached_tokens") or 0,
                "gen_ai.usage.cache_write.input_tokens": inside.get("cache_creation_input_tokens") or 0,
                "gen_ai.usage.reasoning.output_tokens": outside.get("reasoning_tokens") or 0,
                "gen_ai.usage.cost.amount": spent * 1.5e-7 + made * 6e-7,
                "http.response.status_code": seen.status,
                "server.address": seen.request.url.host,
                "server.port": seen.request.url.port or 443,
                "gen_ai.request.stream": seen.last is not seen.first,
                "bench.key": "one",
            },
        )
        span.end()


def _closing(data: bytes, at: int) -> int:
    depth = 0
    while True:
        opened, closed = data.find(b"{", at), data.find(b"}", at)
        if 0 <= opened < closed:
            depth, at = depth + 1, opened + 1
        else:
            depth, at = depth - 1, closed + 1
            if depth == 0:
                return at


def _model(data: bytes) -> str:
    at = data.find(b'"model":"')
    return data[at + 9 : data.find(b'"', at + 9)].decode() if at >= 0 else ""
