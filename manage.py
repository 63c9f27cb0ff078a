#!/usr/bin/env python
"""Spendwatch's commands: `python manage.py help`."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "server.settings")
    if sys.argv[1:2] == ["demo"]:
        # Before the settings are read: the demonstration never touches the data of `up`.
        os.environ.setdefault("SPENDWATCH_DATA_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), ".demo"))
    from django.core.management import execute_from_command_line

    from spendwatch.errors import SpendwatchError

    try:
        execute_from_command_line(sys.argv)
    except SpendwatchError as error:
        # Raised on purpose, with what to do: the message is all that helps.
        sys.exit(f"spendwatch: {error}")
