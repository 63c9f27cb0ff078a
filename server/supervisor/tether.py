"""Runs a command that dies with its parent: `python -I -S tether.py <parent's pid> <command> ...`.

The kernel is asked (PR_SET_PDEATHSIG) to send SIGKILL when the parent ends, also when the parent is killed with -9 and
can't do it itself; the request outlives exec. It is made here rather than between fork and exec of a threaded parent.
Standard library only: it runs before anything is importable.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends. Does nothing where the kernel can't (not Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    die_with_parent()
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before the request was made
    os.execvp(command[0], command)  # noqa: S606  # the command is the supervisor's own


if __name__ == "__main__":
    main()
