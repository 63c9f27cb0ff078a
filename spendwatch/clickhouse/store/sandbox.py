"""The kernel's fence around the store (Linux Landlock): only its own folder is writable, only the program's is
readable, no program can be started and no TCP connection made.

The engine's grants already refuse files and URLs by name; this holds for the ways around them that a statement may
still find (an expression inside data, a table engine with a path, a function nobody knew). Where the kernel has no
Landlock (before Linux 5.19, other systems) confine() says so and changes nothing.
"""

import ctypes
import os
import sys
from pathlib import Path

import spendwatch

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38

_READ_FILE, _READ_DIR, _EXECUTE, _REFER, _TRUNCATE, _IOCTL = 1 << 2, 1 << 3, 1 << 0, 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | 1 << 1 | _READ_FILE | _TRUNCATE | _IOCTL
_CONNECT_TCP = 1 << 1

# What the engine and Python look at while they run. Not all of /proc: its environ would show the parent's secrets.
_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/sys",
    "/dev/null",
    "/dev/urandom",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/version",
    "/proc/uptime",
    "/proc/sys",
    "/proc/mounts",
    "/proc/self/status",
    "/proc/self/statm",
    "/proc/self/stat",
    "/proc/self/maps",
    "/proc/self/smaps_rollup",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/proc/self/limits",
    "/proc/self/task",
)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def confine(folder: Path) -> bool:
    """Fence this process in, for good; folder is the one it may write to. False when the kernel can't.

    To be called by the only thread, before the engine is loaded: threads that exist already would stay outside.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 2:  # version 1 forbids moving a file between folders, which every merge does
        return False
    files = (1 << 14) - 1 | (_TRUNCATE if version >= 3 else 0) | (_IOCTL if version >= 5 else 0)
    attributes = _Ruleset(files, _CONNECT_TCP if version >= 4 else 0, 0)
    size = 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        _allow(libc, ruleset, folder, files & ~_EXECUTE)
        for place in (*_READABLE, sys.prefix, sys.base_prefix, *spendwatch.__path__):
            _allow(libc, ruleset, Path(place), _READ_FILE | _READ_DIR)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, place: Path, access: int) -> None:
    """Allow `access` on a file, or on a folder and what is below it; a place that is not there needs no rule."""
    try:
        parent = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _PathBeneath(access if place.is_dir() else access & _OF_FILES, parent)
        libc.syscall(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
        )
    finally:
        os.close(parent)
