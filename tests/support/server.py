"""Owns one real `unbroken serve` process of a test: its directory, its port, its output and its violent ends.

Integration tests use the `server` fixture or `ServerProcess` itself, and talk to it over sockets like anybody else. It
never imports the server: what a test sees is what an installed program does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pytest

from tests.support.canary import plant, printed
from unbroken.testing.ports import free_port

__all__ = ["ServerProcess", "WorkerProcess", "free_port", "server"]

START_SECONDS = 60.0
STOP_SECONDS = 60.0
OUTPUT_LINES_MAX = 20_000


class ServerProcess:
    """A server as a child process; the same port and the same database over every restart.

    Every wait is bounded and its failure shows the server's output. `async with` starts it and in any case ends it.
    """

    ready = "listening on"

    def __init__(
        self,
        directory: Path,
        *,
        durability: str = "process",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.directory = directory
        self.database = directory / "unbroken.db"
        self.durability = durability
        self.arguments = tuple(arguments)
        self.environment = dict(environment or {})
        if token := self.environment.get("UNBROKEN_TOKEN"):
            plant(token)
        self.port = free_port() if port is None else port
        self.starts = 0
        self._lines: list[str] = []
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What all its processes have printed so far, both channels, in order of arrival."""
        return "".join(self._lines)

    async def start(self) -> None:
        """Start it and wait until it says that it listens; a server that dies first fails here with its output."""
        assert not self.running, "the server runs already"
        self._ready.clear()
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork; the waiting below is off the loop
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=self.directory,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | self.environment,
            start_new_session=True,
        )
        self.starts += 1
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for reader in self._readers:
            reader.start()
        await asyncio.to_thread(self._ready.wait, START_SECONDS)
        if not self._announced():
            await self.kill()
            raise AssertionError(f"the server did not become ready:\n{self.output}")

    async def kill(self) -> None:
        """`kill -9`: no handler, no flush, no goodbye. Returns when the process is gone."""
        self._signal(signal.SIGKILL)
        await self._wait()

    async def terminate(self) -> int:
        """SIGTERM, and wait for the orderly end; gives the exit status."""
        self._signal(signal.SIGTERM)
        return await self._wait()

    async def restart(self, *, kill: bool = True) -> None:
        """End it (with SIGKILL, or orderly) and start it again on the same port and database."""
        await (self.kill() if kill else self.terminate())
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP: the process keeps its sockets and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.thaw()
        await asyncio.shield(self.kill())
        printed(self.output)

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "unbroken", "serve", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--store", f"sqlite:///{self.database}", "--durability", self.durability),
            *self.arguments,
        ]

    def _announced(self) -> bool:
        return self.running and self._ready.is_set()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def _wait(self) -> int:
        process = self._process
        if process is None:
            return 0
        try:
            status = await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
            raise AssertionError(f"the server did not end within {STOP_SECONDS:.0f} s:\n{self.output}") from None
        for reader in self._readers:
            await asyncio.to_thread(reader.join, STOP_SECONDS)
        return status

    def _read(self, stream: IO[str]) -> None:
        """Collect one channel, in its own thread, until the process closes it."""
        with stream:
            for line in stream:
                if len(self._lines) < OUTPUT_LINES_MAX:
                    self._lines.append(line)
                if self.ready in line:
                    self._ready.set()
        self._ready.set()  # whoever waits for readiness of a dead process need wait no longer


class WorkerProcess(ServerProcess):
    """`unbroken worker` on the database of the server in the same directory."""

    ready = "worker ready"

    def _command(self) -> list[str]:
        store = ("--store", f"sqlite:///{self.database}", "--durability", self.durability)
        return [sys.executable, "-m", "unbroken", "worker", *store, *self.arguments]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A running server with an empty database of its own."""
    async with ServerProcess(tmp_path) as process:
        yield process
