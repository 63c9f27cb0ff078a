"""What a reply should be, as the request asks for it.

A request carries its script as JSON in `metadata.script` (text, as the OpenAI SDK allows) or as an object in `script`
(extra_body); POST /_script queues one for the next request of a model. With none, the reply is "ok." and the token
counts follow from the lengths of the texts (four characters a token).
"""

from typing import Any

import msgspec

from tests.fakes.openrouter.tokens import Tokens


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call the reply asks for."""

    name: str
    arguments: dict[str, Any] = {}


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error instead of a reply; with after_chunks, in the middle of a stream whose HTTP status was 200."""

    status: int
    message: str = "scripted failure"
    error_type: str = "server_error"
    retry_after_s: int | None = None
    after_chunks: int | None = None


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reply: its text, tool calls, counts, pace and end."""

    reply: str = "ok."
    tool_calls: list[ToolCall] = []
    tokens: Tokens | None = None
    chunks: int = 3
    chunk_delay_s: float = 0.0
    cut_after: int | None = None
    """Close the connection after that many chunks, as a broken network does; the generation is billed."""
    error: Failure | None = None
    provider: str | None = None
    byok: bool = False
    dated_model: bool = False
    """Name the dated id, not the slug, as the reply's model."""
    finish_reason: str | None = None

    def counts(self, body: dict[str, Any]) -> Tokens:
        """The scripted tokens, else counts that follow from the texts."""
        if self.tokens is not None:
            return self.tokens
        asked = sum(len(text) for text in _texts([body.get("system"), body.get("messages"), body.get("tools")]))
        said = len(self.reply) + sum(len(msgspec.json.encode(call.arguments)) for call in self.tool_calls)
        return Tokens(prompt=max(1, asked // 4), completion=max(1, said // 4))

    def pieces(self) -> list[str]:
        """The text cut into at most `chunks` parts."""
        size = max(1, -(-len(self.reply) // max(1, self.chunks)))
        return [self.reply[i : i + size] for i in range(0, len(self.reply), size)]


def script_of(body: dict[str, Any]) -> Script | None:
    """The script inside a request. Raises msgspec.ValidationError when it is not one."""
    inline = body.get("script")
    if inline is not None:
        return msgspec.convert(inline, Script)
    metadata = body.get("metadata") or {}
    if isinstance(metadata, dict) and "script" in metadata:
        return msgspec.json.decode(metadata["script"], type=Script)
    return None


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return []
