"""The Celery application; tasks are found in each app's tasks.py.

A worker and a beat that are up keep a heartbeat file, <data_dir>/run/<name>.alive, which holds their process id and is
touched every few seconds: whoever watches them (the supervisor, a container's probe) reads it instead of asking over
the broker, which costs seconds.
"""

import contextlib
import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, heartbeat_sent, worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "server.settings")

app = Celery("spendwatch")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def _alive(name: str) -> None:
    from server.env import env

    # A heartbeat that can't be written must not stop the work.
    with contextlib.suppress(OSError):
        path = env().data_dir / "run" / f"{name}.alive"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(f"{os.getpid()}\n")


@worker_ready.connect
def _worker_is_ready(**_: Any) -> None:
    _alive("worker")


@heartbeat_sent.connect
def _worker_is_alive(**_: Any) -> None:
    _alive("worker")


@beat_init.connect
def _beat_is_ready(**_: Any) -> None:
    _alive("beat")
