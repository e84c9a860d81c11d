"""Starting, killing and restarting the server under test, as an ordinary process in a directory of its own.

The runner uses it for `--start`. It ends what it started, by its id, and removes the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import ssl as tls
from pathlib import Path
from typing import Protocol

from unbroken.errors import ConfigurationError, UnreachableError
from unbroken.testing.survival.secure import Secure

__all__ = ["CommandLauncher", "Launcher", "listening", "words_of"]

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class Launcher(Protocol):
    """Who can start and stop the server."""

    async def start(self, port: int, directory: Path) -> None:
        """Start it; returns when it listens on `port`."""

    async def stop(self, number: signal.Signals) -> None:
        """End it with a signal; returns when it is gone."""


def words_of(command: str, *, setting: str) -> list[str]:
    """A command line as a shell reads it; `ConfigurationError` for one that names no program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"this is no command line: {error}", setting=setting) from None
    if not words:
        raise ConfigurationError("an empty command line starts nothing", setting=setting)
    return words


class CommandLauncher:
    """A command line in which `{port}` and `{directory}` stand for what the kit chooses."""

    def __init__(self, command: str) -> None:
        self._words = words_of(command, setting="start")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, port: int, directory: Path) -> None:
        words = [word.replace("{port}", str(port)).replace("{directory}", str(directory)) for word in self._words]
        log = await asyncio.to_thread((directory / "server.log").open, "ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *words, cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        except OSError as error:
            reason = f"the server cannot be started: {words[0]}: {error.strerror}"
            raise ConfigurationError(reason, setting="start") from None
        finally:
            log.close()
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await listening("127.0.0.1", port):
                    if self._process.returncode is not None:
                        raise UnreachableError(f"the server ended with {self._process.returncode}: {_tail(directory)}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop(signal.SIGKILL)
            raise UnreachableError(f"the server does not listen on port {port}: {_tail(directory)}") from None

    async def stop(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        _signal(process.pid, number)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            _signal(process.pid, signal.SIGKILL)
            await process.wait()
        _signal(process.pid, signal.SIGKILL)  # what it left of its own session
        self._process = None


def _signal(leader: int, number: signal.Signals) -> None:
    """Reach the whole session that was started: a command may be a shell with the server below it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _tail(directory: Path) -> str:
    with contextlib.suppress(OSError):
        return (directory / "server.log").read_text(encoding="utf-8", errors="replace")[-1000:]
    return ""


async def listening(host: str, port: int, known: Secure | None = None) -> bool:
    """Whether somebody takes connections there; with `known`, and proves who it is: `UnreachableError` when it does not."""
    ssl, name = (None, None) if known is None else (known.ssl, known.host)
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=ssl, server_hostname=name)
    except tls.SSLCertVerificationError as error:
        raise UnreachableError(f"the certificate of {name} is not trusted: {error.verify_message}") from error
    except OSError:
        return False
    writer.transport.abort()
    return True
