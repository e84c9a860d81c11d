"""One process of an MCP server: its group, its bounded lines, the end of its error output, and its certain death.

`stdio` speaks MCP over it. It knows no protocol but lines, and leaves no process behind, however it is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from unbroken.limits import Limits
from unbroken.mcp.config import INHERITED, StdioServer
from unbroken.runs.lifeline import tied

__all__ = ["Child", "LineTooLongError", "child_environment", "close_pipes", "started"]

READ_BYTES: Final = 64 * 1024


class LineTooLongError(Exception):
    """The process wrote more than `mcp_line_bytes_max` without an end of line."""


def child_environment(configured: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server's process: a few names of our own, and what was configured."""
    inherited = {name: own[name] for name in INHERITED if name in own and not own[name].startswith("()")}
    return {**inherited, **configured}


class Child:
    """A running process. `lines` has one reader; `write` waits while the process reads nothing."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._limits = limits
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._writing = asyncio.Lock()
        self.stderr_ended = asyncio.Event()

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    def stderr_tail(self) -> str:
        """The end of its error output, at most `mcp_stderr_bytes_max`."""
        return b"".join(self._tail)[-self._limits.mcp_stderr_bytes_max :].decode(errors="replace")

    async def lines(self) -> AsyncIterator[bytes]:
        """Lines of its output without their ends, until it closes it; raises `LineTooLongError`."""
        most = self._limits.mcp_line_bytes_max
        parts: list[bytes] = []
        size = 0
        while data := await self._stdout.read(READ_BYTES):
            *ended, rest = data.split(b"\n")
            for line in ended:
                if size + len(line) > most:
                    raise LineTooLongError
                yield b"".join((*parts, line)).rstrip(b"\r")
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            if size > most:
                raise LineTooLongError
        if size:
            yield b"".join(parts)

    async def write(self, line: bytes) -> None:
        """Write one line; `ConnectionError` when nobody reads it any more."""
        async with self._writing:
            self._stdin.write(line + b"\n")
            await self._stdin.drain()

    async def keep_stderr(self) -> None:
        """Read the error output to its end, and keep the end of it."""
        most = self._limits.mcp_stderr_bytes_max
        try:
            while data := await self._stderr.read(READ_BYTES):
                self._tail.append(data)
                self._tail_bytes += len(data)
                while self._tail_bytes - len(self._tail[0]) >= most:
                    self._tail_bytes -= len(self._tail.popleft())
        finally:
            self.stderr_ended.set()

    async def leave(self) -> None:
        """End its input, wait, SIGTERM to its group, wait, SIGKILL to all that is left of it."""
        seconds = self._limits.mcp_close_seconds
        try:
            self._stdin.close()
            if not await self._gone(seconds):
                self._signal(signal.SIGTERM)
                await self._gone(seconds)
        finally:
            self._signal(signal.SIGKILL)
            await self._gone(seconds)

    async def kill(self) -> None:
        """SIGKILL to its group at once."""
        self._signal(signal.SIGKILL)
        await self._gone(self._limits.mcp_close_seconds)

    async def settle(self, seconds: float) -> None:
        """Give it a moment to end by itself and to finish its last words."""
        await self._gone(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stderr_ended.wait()

    async def _gone(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        return self._process.returncode is not None

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@asynccontextmanager
async def started(server: StdioServer, limits: Limits) -> AsyncIterator[Child]:
    """Start a process of `server` in a group of its own; it is gone when the block is left. `OSError` when it cannot be."""
    environment = child_environment(server.env, os.environ)
    process = await asyncio.create_subprocess_exec(
        *await tied((server.command, *server.args), environment=environment, cwd=server.cwd),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=server.cwd,
        start_new_session=True,  # and so a group of its own, with any event loop
        limit=READ_BYTES,
    )
    child = Child(process, limits)
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(child.keep_stderr())
        try:
            yield child
        finally:
            try:
                await child.leave()
            finally:
                reader.cancel()
                close_pipes(process)


def close_pipes(process: asyncio.subprocess.Process) -> None:
    """Let go of the pipes, which somebody who left the group may still hold; nothing public of asyncio does that."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
