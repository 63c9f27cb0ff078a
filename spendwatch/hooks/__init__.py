"""Hooks: how calls are seen, one file per HTTP library. This is their list, and when they are put in.

A client that is imported already is hooked at once, one that is not when it is: nothing is imported for its sake.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

from spendwatch.hooks.guard import caught
from spendwatch.recorder import Recorder

log = logging.getLogger("spendwatch")

HOOKS: dict[str, str] = {
    "httpx": "spendwatch.hooks.httpx",
    "httpx2": "spendwatch.hooks.httpx",
    "urllib3": "spendwatch.hooks.urllib3",
    "aiohttp": "spendwatch.hooks.aiohttp",
    "http.client": "spendwatch.hooks.http_client",
}
"""Client module -> the module of its hook, whose `Hook(module, recorder)` is put in."""


class Hook(Protocol):
    """What a hook module's Hook can do."""

    def install(self) -> None: ...
    def remove(self) -> None: ...


class Hooks:
    """The hooks that are in, and those that wait for their client to be imported."""

    def __init__(self, recorder: Callable[[], Recorder | None]) -> None:
        self._recorder = recorder
        self._in: dict[str, Hook] = {}
        self._finder = _Finder(self._imported)
        self._lock = threading.RLock()

    def put_in(self, clients: Sequence[str]) -> None:
        """Hook these clients, and take the hook out of every other."""
        with self._lock:
            for name in [name for name in self._in if name not in clients]:
                self._in.pop(name).remove()
            self._finder.waiting = {name for name in clients if name not in self._in}
            for name in clients:
                module = sys.modules.get(name)
                if module is not None and name not in self._in:
                    self._imported(module)
            if self._finder.waiting and self._finder not in sys.meta_path:
                sys.meta_path.insert(0, self._finder)

    def take_out(self) -> None:
        """Leave every client as it was found."""
        self.put_in(())
        with self._lock:
            if self._finder in sys.meta_path:
                sys.meta_path.remove(self._finder)

    def after_fork(self) -> None:
        """In a forked child: the lock may be held by a thread that doesn't exist here."""
        self._lock = threading.RLock()

    def _imported(self, module: ModuleType) -> None:
        name = module.__name__
        with self._lock:
            if name in self._in:
                return
            try:
                hook: Hook = importlib.import_module(HOOKS[name]).Hook(module, self._recorder)
                hook.install()
            except Exception as exc:  # noqa: BLE001  # an import of the app's must not fail for our sake
                caught(f"hooking {name} {getattr(module, '__version__', '')}".strip(), exc)
                return
            self._in[name] = hook
            self._finder.waiting.discard(name)


class _Finder(importlib.abc.MetaPathFinder):
    """Tells when one of the waiting modules has been imported. Finds nothing by itself: the others' finding is used."""

    def __init__(self, imported: Callable[[ModuleType], None]) -> None:
        self.waiting: set[str] = set()
        self._tell = imported
        self._looking = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  # the interpreter passes them
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.waiting or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking.now = False
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader, self._tell)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, then tells."""

    def __init__(self, loader: importlib.abc.Loader, tell: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # resources and reload() find the module's own loader again
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._tell(module)
