"""The one recorder of a process: put in place, replaced, taken away; and what happens at a fork and at the end.

Invariant: at most one recorder is active, and a forked child has nothing of its parent's to send. Never here: what is
recorded.
"""

import atexit
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from spendwatch import config
from spendwatch.fingerprint import Fingerprinter
from spendwatch.hooks import Hooks, exchange, httpspans
from spendwatch.recorder import Recorder
from spendwatch.sink import Elsewhere, Sink, fingerprint_key

EXIT_FLUSH_S = 2.0
"""At most this long the end of the process waits for the server."""

_lock = threading.RLock()
_recorder: Recorder | None = None
_told: tuple[Any, ...] | None = None
_hooks: Hooks
_registered = False


def recorder() -> Recorder | None:
    """The recorder in force, None when nothing is being recorded."""
    return _recorder


_hooks = Hooks(recorder)


def instrument(arguments: Mapping[str, Any], *, span_exporter: Any, tracer_provider: Any) -> None:
    """See spendwatch.instrument()."""
    global _recorder, _told
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    settings = config.resolve(**arguments)
    httpspans.check(settings)
    told = (settings, span_exporter, tracer_provider)
    with _lock:
        if _recorder is None or told != _told:
            old = _recorder
            if tracer_provider is not None and span_exporter is None and not settings.url_given:
                sink: Elsewhere | Sink = Elsewhere(tracer_provider)
            else:
                sink = Sink(settings, span_exporter=span_exporter)
            fingerprints = Fingerprinter(fingerprint_key(settings))
            _recorder, _told = Recorder(settings, sink, fingerprints, tracer_provider), told
            if old is not None:
                _part(old)
        _hooks.put_in(settings.clients)
        _register()


def uninstrument() -> None:
    """See spendwatch.uninstrument()."""
    global _recorder, _told
    with _lock:
        _hooks.take_out()
        old, _recorder, _told = _recorder, None, None
    if old is not None:
        exchange.end_all()
        _part(old)


def flush(timeout_s: float) -> bool:
    """See spendwatch.flush()."""
    active = _recorder
    return active is None or active.sink.flush(timeout_s)


def _register() -> None:
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def _at_exit() -> None:
    active = _recorder
    if active is None:
        return
    exchange.end_all()
    _part(active)


def _part(old: Recorder) -> None:
    if old.sink.pending():
        old.sink.flush(EXIT_FLUSH_S, retry=False)
    old.sink.close()


def _after_fork_in_parent() -> None:
    # Workers of these two end by os._exit, perhaps within milliseconds, and no atexit of theirs runs. For any other
    # fork no thread is begun: since 3.12 Python warns whoever forks beside one.
    if _recorder is not None and ("billiard.popen_fork" in sys.modules or "multiprocessing.popen_fork" in sys.modules):
        _recorder.sink.watch_children()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    exchange.live.clear()
    if _recorder is not None:
        _recorder.after_fork()
    _hooks.after_fork()
