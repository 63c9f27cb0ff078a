"""The ASGI application of the collector's process: `uvicorn collectors.otlp.app:app`, or `python -m collectors.otlp`.

Django is set up for its models alone; none of its request handling is in the way of a span.
"""

import os

import django
from django.apps import apps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "server.settings")
if not apps.ready:
    django.setup()

from collectors.otlp.ingest import Ingest  # its models need Django set up

app = Ingest()
