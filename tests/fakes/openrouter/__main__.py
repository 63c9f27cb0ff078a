"""`python -m tests.fakes.openrouter --port N`: serve until interrupted."""

import argparse
import asyncio
from pathlib import Path

import uvicorn

from tests.fakes.openrouter.app import App
from tests.fakes.openrouter.world import World


def main() -> None:
    """Read the arguments, print the ready line, serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.openrouter", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--journal", type=Path, help="a file that keeps the world between runs")
    parser.add_argument("--include-today", action="store_true", help="/activity speaks of today too")
    arguments = parser.parse_args()
    world = World(journal=arguments.journal, include_today=arguments.include_today)
    config = uvicorn.Config(
        App(world),
        host="127.0.0.1",
        port=arguments.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    asyncio.run(_serve(uvicorn.Server(config)))


async def _serve(server: uvicorn.Server) -> None:
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        port = server.servers[0].sockets[0].getsockname()[1]
        print(f"openrouter ready on http://127.0.0.1:{port}", flush=True)
    await serving


if __name__ == "__main__":
    main()
