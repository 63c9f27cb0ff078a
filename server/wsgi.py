"""The WSGI application: what the web server serves."""

import os

from django.core.wsgi import get_wsgi_application

from server.env import env
from server.supervisor.tether import die_with_parent

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "server.settings")

if env().supervised:
    # This is the web server's own child, which the supervisor's request to the kernel does not reach: ask again, so
    # that it ends with its master.
    die_with_parent()

application = get_wsgi_application()
