"""From what the command line says to a target: the adapter by its name, the launcher, the claims.

The command calls `loaded`. An adapter that cannot be loaded is a configuration error that names it.
"""

from __future__ import annotations

import importlib
import ssl as tls
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from unbroken.errors import ConfigurationError
from unbroken.testing.survival.adapter import Adapter, Capability, LostError, RefusedError
from unbroken.testing.survival.adapters.program import Program
from unbroken.testing.survival.process import CommandLauncher, Launcher, words_of
from unbroken.testing.survival.secure import secure
from unbroken.testing.survival.stage import Target

__all__ = ["ADAPTERS", "Wanted", "adapter_class", "loaded"]

ADAPTERS: Final = {
    "unbroken": "unbroken.testing.survival.adapters.unbroken:UnbrokenAdapter",
    "durable-streams": "unbroken.testing.survival.adapters.durable_streams:DurableStreamsAdapter",
    "sse": "unbroken.testing.survival.adapters.sse:SseAdapter",
    "websocket": "unbroken.testing.survival.adapters.websocket:WebSocketAdapter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which server, and how it is spoken to."""

    url: str = ""
    adapter: str = "unbroken"
    command: str = ""
    start: str = ""
    without: tuple[str, ...] = ()
    token: str | None = None
    ssl: tls.SSLContext | None = None
    """What the certificate of a server at `https:` or `wss:` is checked by; None: what the system trusts."""
    ca_file: Path | None = None
    """Where `ssl` has its certificates from, for a program that is the adapter."""


def adapter_class(name: str) -> type[Adapter]:
    """The adapter with a short name, or the class `package.module:Class`."""
    module, _, attribute = ADAPTERS.get(name, name).partition(":")
    if not attribute:
        known = ", ".join(ADAPTERS)
        raise ConfigurationError(f"there is no adapter {name}; there are {known}, and package.module:Class")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the adapter {name} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise ConfigurationError(f"{name} is no class that derives from unbroken.testing.survival.Adapter")
    return found


@asynccontextmanager
async def loaded(wanted: Wanted) -> AsyncIterator[Target]:
    """The target, not started yet."""
    launcher: Launcher | None = CommandLauncher(wanted.start) if wanted.start else None
    if not wanted.command:
        kind = adapter_class(wanted.adapter)
        yield _target(wanted, partial(kind, token=wanted.token), kind.capabilities, launcher)
        return
    async with _program(wanted.command) as program:
        if launcher is None and program.restarts:
            launcher = program
        yield _target(wanted, partial(program.at, token=wanted.token), program.capabilities, launcher)


def _target(
    wanted: Wanted, at: Callable[[str], Adapter], claims: frozenset[Capability], launcher: Launcher | None
) -> Target:
    if not wanted.url and launcher is None:
        raise ConfigurationError("give the address of a running server, or --start and how to start one")
    try:
        without = {Capability(name) for name in wanted.without}
    except ValueError as error:
        raise ConfigurationError(f"{error}; there are {', '.join(Capability)}") from None
    known = secure(wanted.url, wanted.ssl, wanted.ca_file)

    def proven(url: str) -> Adapter:
        adapter = at(url)
        adapter.secure = known
        return adapter

    return Target(wanted.url, proven, claims - without, launcher, secure=known)


@asynccontextmanager
async def _program(command: str) -> AsyncIterator[Program]:
    words = words_of(command, setting="command")
    async with AsyncExitStack() as stack:
        try:
            program = await stack.enter_async_context(Program(words))
        except OSError as error:
            reason = f"the adapter cannot be started: {words[0]}: {error.strerror}"
            raise ConfigurationError(reason, setting="command") from None
        except (LostError, RefusedError) as error:
            raise ConfigurationError(f"the adapter does not say what it can: {error}", setting="command") from None
        yield program
