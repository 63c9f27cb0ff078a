"""What one request, one span and one process may take of the collector. Sizes in bytes, times in seconds."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what comes in. The defaults let an OpenTelemetry Collector's 8,192-span batches through."""

    body: int = 32 * MIB
    """A request's body as sent."""
    decoded: int = 64 * MIB
    """The same after decompression."""
    span: int = 4 * MIB
    """One encoded span. Only other people's spans with whole conversations in them come near."""
    spans: int = 50_000
    """Spans (and resources, and scopes) in one request: each costs memory, even an empty one of 2 bytes."""
    json_items: int = 4_000_000
    """Values in one JSON body, for the same reason."""
    read_s: float = 30
    """For a request's body to arrive."""
    held: int = 256 * MIB
    """Bodies (decoded) and the calls made of them that are held at one time, over all requests."""
    waiting: int = 100_000
    """Calls that wait for their commit."""
    commit_s: float = 9
    """For a commit, before the sender is told to try again. Exporters give up by themselves after 10 s."""
