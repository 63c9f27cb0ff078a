#!/bin/sh
# Makes .venv with the locked dependencies. Needs Python 3.11 or newer; fetches Python packages only.
set -eu
python=${PYTHON:-python3}
uv_version=0.13.9

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "spendwatch needs Python 3.11 or newer; $python is $("$python" --version 2>&1 || echo missing)." >&2
  echo "Install it, or name one: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "Python's venv module is not installed; trying: apt-get install python$version-venv"
  if [ "$(id -u)" = 0 ]; then
    { apt-get update && apt-get install -y "python$version-venv"; } >/dev/null || {
      echo "That failed. Install the package python$version-venv and run make again." >&2; exit 1; }
  else
    echo "Run: sudo apt-get install python$version-venv, then make again." >&2
    exit 1
  fi
fi
echo "Setting up .venv (locked dependencies, about 1 GB)..."
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
touch .venv/.ready
