"""Owns the demonstration's server: `unbroken serve` as a child process, on one port and one database over every restart.

Both forms of the demonstration use it. It talks to the server only with signals and by reading its first line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from unbroken.errors import UnreachableError

__all__ = ["DemoServer"]

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0


class DemoServer:
    """`async with` starts it and ends it; `kill` and `start` restart it on the same port with the same database."""

    def __init__(self, directory: Path, port: int = 0, arguments: Sequence[str] = ()) -> None:
        self._arguments = tuple(arguments)
        self.database = directory / "demo.db"
        self.kills = 0
        self._log = directory / "server.log"
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start it and wait until it listens; `UnreachableError` with its log when it does not."""
        log = await asyncio.to_thread(self._log.open, "ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "unbroken", "serve", "--host", "127.0.0.1", "--port", str(self._port)),
                *("--store", f"sqlite:///{self.database}", "--durability", "disk", "--log-level", "warning"),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("UNBROKEN_")},
            )
        finally:
            log.close()
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                line = (await self._process.stdout.readline()).decode()
        except TimeoutError:
            line = ""
        if "listening on" not in line:
            await self.kill()
            raise UnreachableError(f"the demonstration's server did not start: {self._log.read_text()[-2000:]}")
        self._port = int(line.strip().rpartition(":")[2])

    async def kill(self) -> None:
        """SIGKILL: it can flush nothing and tell nobody."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self.kills += 1

    async def stop(self) -> int | None:
        """SIGTERM, and its exit code."""
        process = self._process
        if process is None or process.returncode is not None:
            return None
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())
