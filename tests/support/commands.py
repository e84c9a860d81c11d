"""Owns the running of `unbroken` as a real process: arguments, input, environment, bounded waits.

Tests of the command line use it. It never imports what it runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Commands", "Finished", "eventually", "finish"]

SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Its output, one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Commands:
    """`unbroken` with a home of its own, talking to one server."""

    program: tuple[str, ...] = (sys.executable, "-m", "unbroken")

    def __init__(self, home: Path, server: str, **environment: str) -> None:
        self.home = home
        self.server = server
        self.spill = home / "unbroken" / "spill"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UNBROKEN_")}
        own = {"XDG_STATE_HOME": str(home), "HOME": str(home), "UNBROKEN_SERVER": server, "PYTHONUNBUFFERED": "1"}
        self._started: list[asyncio.subprocess.Process] = []
        self.environment: Mapping[str, str] = kept | own | environment

    async def start(self, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        """Start it; stdin is empty and both outputs are pipes unless `options` say otherwise."""
        pipes = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
        }
        process = await asyncio.create_subprocess_exec(
            *(*self.program, *arguments), **(pipes | {"env": self.environment} | options)
        )
        self._started.append(process)
        return process

    async def end(self) -> None:
        """Kill what a failed test left running."""
        for process in self._started:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                await process.communicate()

    async def __call__(self, *arguments: str, stdin: bytes = b"", seconds: float = SECONDS_MAX) -> Finished:
        """Run it to its end."""
        process = await self.start(*arguments, stdin=asyncio.subprocess.PIPE)
        return await finish(process, stdin=stdin, seconds=seconds)

    def spilled(self) -> list[Path]:
        """The spill files that are there."""
        return sorted(self.spill.glob("*.spill"))


async def finish(
    process: asyncio.subprocess.Process, *, stdin: bytes | None = None, seconds: float = SECONDS_MAX
) -> Finished:
    """Wait for a process to end; one that does not is killed, and the test fails with what it printed."""
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        told = (err or b"").decode(errors="replace")[-2000:]
        raise AssertionError(f"no end within {seconds:.0f} s:\n{out[-2000:]!r}\n{told}") from None
    assert process.returncode is not None
    return Finished(process.returncode, out or b"", (err or b"").decode(errors="replace"))


async def eventually(condition: Callable[[], Any], what: str, *, seconds: float = SECONDS_MAX) -> Any:
    """Poll until `condition` gives something true; fails, saying `what` was awaited."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    assert found, what
    return found
