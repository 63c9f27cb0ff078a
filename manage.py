#!/usr/bin/env python
"""Spendwatch's commands: `python manage.py help`."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "server.settings")
    from django.core.management import execute_from_command_line

    from spendwatch.errors import SpendwatchError

    try:
        execute_from_command_line(sys.argv)
    except SpendwatchError as error:
        # Raised on purpose, with what to do: the message is all that helps.
        sys.exit(f"spendwatch: {error}")
