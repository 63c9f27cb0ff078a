"""Where recorded calls go: into the spool as bytes, and from there to a server or to an exporter of the app's.

Never here: what a call is worth, HTTP.
"""

import hashlib
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from spendwatch import otlp, spool
from spendwatch.calls import LLMCall
from spendwatch.config import Settings
from spendwatch.exporter import Exporter
from spendwatch.shipper import Shipper

log = logging.getLogger("spendwatch")


class Elsewhere:
    """For an app whose own TracerProvider takes all spans: nothing is kept here, nothing sent, no thread runs."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def take(self, call: LLMCall) -> None:
        """Nothing to do: the call's span went to the provider."""

    def pending(self) -> bool:
        """Never: what waits in the provider's own pipeline is the provider's to send."""
        return False

    def flush(self, timeout_s: float, *, retry: bool = True) -> bool:  # noqa: ARG002  # as every sink's
        """Have the provider send what it holds, if it is one that can."""
        force = getattr(self._provider, "force_flush", None)
        return force is None or force(int(timeout_s * 1_000)) is not False

    def close(self) -> None:
        """The provider is the app's to shut down."""

    def watch_children(self) -> None:
        """Nothing of theirs comes here."""

    def after_fork(self) -> None:
        """Nothing of ours came along."""


class Sink:
    """One spool, one thread that empties it. Used by all threads of the app."""

    def __init__(self, settings: Settings, *, span_exporter: Any = None) -> None:
        head = otlp.head(settings.resource)
        if span_exporter is not None:
            from spendwatch.spans import ToSpanExporter

            # The app's exporter can't be called by another process, so there is nothing to leave on disk for one.
            self.spool = spool.Spool(None, head, settings.spool_limit_bytes)
            self.shipper = Shipper(self.spool, ToSpanExporter(span_exporter))
            return
        folder = spool.open_folder(root(settings), destination(settings))
        self.spool = spool.Spool(folder, head, settings.spool_limit_bytes)
        self.shipper = Shipper(self.spool, Exporter(settings))

    def take(self, call: LLMCall) -> None:
        """Keep the call and see that it is sent."""
        if self.spool.append(otlp.record(call)):
            self.shipper.poke()

    def pending(self) -> bool:
        """Whether anything waits to be sent, or may: what forked children left behind is found in sending it."""
        return self.spool.pending() or self.shipper.watching

    def flush(self, timeout_s: float, *, retry: bool = True) -> bool:
        """Send all that waits; True when it was taken in time."""
        return self.shipper.flush(timeout_s, retry=retry)

    def close(self) -> None:
        """Stop sending. What is on disk stays there for the next process."""
        self.shipper.stop()
        volatile = self.spool.volatile()
        if volatile:
            log.error(
                "spendwatch: %d call(s) were kept in memory only and could not be delivered; they are lost", volatile
            )
        if self.spool.dropped or self.shipper.lost:
            log.error(
                "spendwatch: %d call(s) did not fit into the spool, %d were refused for good",
                self.spool.dropped,
                self.shipper.lost,
            )
        self.spool.close()

    def watch_children(self) -> None:
        """In the parent of forked workers: send what they leave when they end."""
        self.shipper.watch()

    def after_fork(self) -> None:
        """In a forked child: begin anew, with nothing of the parent's."""
        self.spool.after_fork()
        self.shipper.after_fork()


def root(settings: Settings) -> Path:
    """The folder that holds the spools of all destinations."""
    return Path(settings.spool_dir) if settings.spool_dir else spool.default_folder()


def destination(settings: Settings) -> str:
    """A name for where the calls go: the same address with the same credentials has the same one."""
    text = "\0".join((settings.url, *(f"{k}={v}" for k, v in sorted(settings.headers.items()))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_key(settings: Settings) -> bytes:
    """The key that fingerprints are made with: from the token, so that all processes of a project agree.

    Without a token, a random key that the machine's processes share in a file; where that can't be kept, a random one.
    """
    if settings.token:
        return hashlib.blake2b(settings.token.encode(), person=b"sw-fingerprint", digest_size=32).digest()
    path = root(settings) / "fingerprint.key"
    fresh = secrets.token_bytes(32)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}")
        draft.write_bytes(fresh)
        draft.chmod(0o600)
        try:
            os.link(draft, path)  # fails when another process was first; then its key is the one
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        found = path.read_bytes()
    except OSError:
        return fresh
    return found if len(found) == 32 else fresh
