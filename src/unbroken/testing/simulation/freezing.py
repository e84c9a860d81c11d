"""Processes in one event loop that can be stopped for a while, each by itself, as SIGSTOP stops a real one.

What runs in a context that `Freezer.context` made, and what is begun there, belongs to that process: while it is frozen the
loop keeps its steps and timers, and runs them in order afterwards. Time goes on meanwhile, and the network holds what comes.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar

__all__ = ["FreezableHandle", "Freezer"]


class Freezer:
    """Stops one process of a `VirtualLoop`, and lets it go on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self.frozen = False
        self.thawed_at: float | None = None
        """When it went on last."""
        self.bites = 0
        """How many steps had to wait."""

    def context(self) -> Context:
        """A context for what shall belong to this process."""
        context = Context()
        context.run(_FREEZER.set, self)
        return context

    def freeze(self) -> None:
        """From now on nothing of the process happens."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on, with what was held first."""
        self.frozen = False
        self.thawed_at = self._loop.time()
        held, self._held = self._held, []
        self._loop._ready.extend(held)  # type: ignore[attr-defined]

    def hold(self, handle: asyncio.Handle) -> bool:
        """Whether the step has to wait."""
        if self.frozen:
            self._held.append(handle)
            self.bites += 1
        return self.frozen


_FREEZER: ContextVar[Freezer] = ContextVar("freezer")


class FreezableHandle(asyncio.Handle):
    """A step of the loop that waits while its process is frozen."""

    __slots__ = ()

    def _run(self) -> None:
        freezer = self._context.get(_FREEZER)  # type: ignore[attr-defined]
        if freezer is None or not freezer.hold(self):
            super()._run()
