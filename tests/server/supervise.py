"""A program under test: a Supervisor over the children given as JSON on its command line.

Each child is {"name", "code"}: Python code that is ready once it has written the file $READY with its process id.
"""

import json
import sys
from pathlib import Path

from server.supervisor import Child, Stopped, Supervisor
from server.supervisor.ready import beats
from spendwatch.errors import SpendwatchError


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    folder, children = Path(sys.argv[1]), json.loads(sys.argv[2])
    try:
        with Supervisor(logs=folder / "logs", directory=folder, say=say) as supervisor:
            for child in children:
                ready = folder / f"{child['name']}.alive"
                code = f"import os, signal, time\nREADY = {str(ready)!r}\n{child['code']}"
                supervisor.start(
                    Child(
                        name=child["name"],
                        argv=[sys.executable, "-c", code],
                        ready=beats(ready),
                        stage=child.get("stage", 1),
                        stop_after_s=child.get("stop_after_s", 5),
                    )
                )
            supervisor.wait_ready()
            say("ready " + json.dumps(supervisor.pids))
            supervisor.run()
            say("stopping")
    except Stopped:
        say("stopped early")
        return 1
    except SpendwatchError as error:
        say(f"failed: {error}")
        return 2
    say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
