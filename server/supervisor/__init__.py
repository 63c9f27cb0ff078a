"""One command for all processes: starts them, says when they are ready, restarts the dead, leaves none behind.

    Child        what a process is: its command, how one sees that it is ready
    Supervisor   starts, watches, restarts and stops children; knows nothing of Spendwatch
    Service      Spendwatch's own children on one machine, drawn from an Env

Invariant: when the supervisor is gone, however it went, so are its children.
"""

from server.supervisor.child import Child
from server.supervisor.service import FirstStart, Service
from server.supervisor.supervisor import StartError, Stopped, Supervisor

__all__ = ["Child", "FirstStart", "Service", "StartError", "Stopped", "Supervisor"]
