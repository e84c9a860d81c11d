"""The demonstration for people: the server, its page, and streams to reload, until Ctrl-C.

`unbroken demo` runs it. It writes into a directory of its own, which goes away with it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

from unbroken.cli.output import note
from unbroken.client import Client
from unbroken.demo import scenes
from unbroken.demo.server import DemoServer

__all__ = ["run_live"]

PAUSE_BETWEEN_SECONDS: Final = 5.0


async def run_live(directory: Path, port: int) -> int:
    """Play until SIGINT or SIGTERM; prints the page's address first. The exit code."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    async with DemoServer(directory, port) as server, Client(server.url) as client:
        sys.stdout.write(f"open {server.url}/#/stream/demo/answer-1 and reload it while it writes\n")
        sys.stdout.flush()
        note(f"the command line works too: unbroken tail --follow demo/answer-1 --server {server.url}")
        note("Ctrl-C ends the demonstration")
        async with asyncio.TaskGroup() as group:
            plays: list[tuple[str, Callable[[str], Coroutine[object, object, object]]]] = [
                ("answer", lambda name: scenes.answer(client, name, pause=0.12)),
                ("task", lambda name: scenes.task(client, name, steps=120, pause=1.0)),
                ("program", lambda name: scenes.program(server.url, name, lines=120, pause=0.5)),
            ]
            tasks = [group.create_task(_repeat(name, play)) for name, play in plays]
            await over.wait()
            for task in tasks:
                task.cancel()
    return 0


async def _repeat(name: str, play: Callable[[str], Coroutine[object, object, object]]) -> None:
    """Play a scene again and again, each time as another stream."""
    number = 1
    while True:
        await play(f"demo/{name}-{number}")
        number += 1
        await asyncio.sleep(PAUSE_BETWEEN_SECONDS)
