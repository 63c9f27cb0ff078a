"""What one request, one span and one process may take of the collector. Sizes in bytes, times in seconds."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what comes in. By default a batch of 8,192 spans of our SDK (17 MB) fits uncompressed, and one of an
    OpenTelemetry Collector whose spans hold some KB of conversation compressed. What is more is answered 413."""

    body: int = 32 * MIB
    """A request's body as sent, compressed or not."""
    decoded: int = 64 * MIB
    """The same after decompression; of a body that is not compressed only `body` counts."""
    span: int = 4 * MIB
    """One encoded span; a larger one is rejected alone. Only spans with whole conversations in them come near."""
    spans: int = 50_000
    """Spans, resources and scopes in one protobuf request together; in JSON, spans. Each costs memory, even an empty
    one of 2 bytes."""
    json_items: int = 4_000_000
    """Commas and opening braces in one JSON body, about its values; for the same reason."""
    read_s: float = 30
    """For a request's body to arrive."""
    held: int = 256 * MIB
    """Bodies, as sent and decompressed, from their first byte to the answer, over all requests. Beyond it: 429."""
    waiting: int = 100_000
    """Calls that wait for their commit, unless one request has more by itself. Beyond it: 429."""
    commit_s: float = 9
    """For a commit, before the sender is told to try again. Exporters give up by themselves after 10 s."""
