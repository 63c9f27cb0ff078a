"""Fuzz the readers: `make fuzz`, or `make fuzz ARGS="--minutes 1 --reader anthropic_messages"`.

Each reader gets its minutes three times over: with inputs that hypothesis draws, with inputs that coverage guides
(atheris, which this installs when it is missing), and once through the check of how its work grows. A failing input is
kept in tests/fuzz/seeds, where the tests read it ever after. Exit status 1 when something was found.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.drawn import fuzz
from tests.fuzz.growth import check_growth
from tests.fuzz.harness import keep, readers

_ENGINES = ("hypothesis", "atheris", "growth")
_NOISE = ("#", "INFO", "WARNING", "0x", "stat::", "Base64", "\\")


def has_atheris() -> bool:
    """Whether coverage can guide; installs what is missing, which no test needs."""
    if importlib.util.find_spec("atheris") is not None:
        return True
    print("installing atheris (35 MB, for fuzzing alone)", flush=True)
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--only-binary", "atheris"]
    done = subprocess.run([*command, "--group", "fuzz"], capture_output=True, text=True, check=False)
    importlib.invalidate_caches()
    if done.returncode == 0 and importlib.util.find_spec("atheris") is not None:
        return True
    print(
        f"atheris can't be installed here, so fuzzing is not guided by coverage: {done.stderr.strip()[-300:]}\n"
        "Wheels exist for CPython 3.11 to 3.13 on Linux x86-64. Going on with hypothesis alone."
    )
    return False


def guided(name: str, seconds: float) -> tuple[int, str | None]:
    """How many inputs were tried, and what the reader's process said when it broke a promise."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds)], capture_output=True, text=True,
            errors="replace", env={**os.environ, "SPENDWATCH_FUZZ_FOUND": folder}, check=False,
        )  # fmt: skip
        tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        if done.returncode == 0:
            return int(tried[1]) if tried else 0, None
        kept = [keep(path.read_bytes()[1:]) for path in sorted(Path(folder).glob("found-*"))]
        lines = (done.stdout + done.stderr).splitlines()
        said = "\n".join(line for line in lines if not line.startswith(_NOISE))
        return int(tried[1]) if tried else 0, f"kept {', '.join(kept) or 'nothing'}\n{said[-3000:]}"


def main() -> int:
    """Fuzz what was asked for; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the readers of spendwatch.wire.")
    parser.add_argument("--minutes", type=float, default=10, help="for each reader and engine (default 10)")
    parser.add_argument("--reader", action="append", choices=sorted(readers()), help="this one alone; may be repeated")
    parser.add_argument("--engine", action="append", choices=_ENGINES, help="this one alone; may be repeated")
    asked = parser.parse_args()
    engines = [one for one in asked.engine or _ENGINES if one != "atheris" or has_atheris()]
    names = asked.reader or sorted(readers())
    seconds = asked.minutes * 60
    print(f"{len(names)} readers, {', '.join(engines)}, {asked.minutes:g} minutes each", flush=True)
    failed = 0
    for name in names:
        kinds = readers()[name]
        for engine in engines:
            began = time.monotonic()
            tried, problem = 0, None
            if engine == "hypothesis":
                try:
                    tried = fuzz(kinds, seconds)
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
            elif engine == "atheris":
                tried, problem = guided(name, seconds)
            else:
                problem = "\n".join(check_growth(kinds)) or None
            failed += problem is not None
            outcome = "nothing found" if problem is None else f"FOUND\n{problem}"
            print(f"{name} {engine}: {tried or '-'} inputs in {time.monotonic() - began:.0f} s: {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
