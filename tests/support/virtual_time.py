"""Owns an event loop whose clock jumps: waiting takes no real time, while sockets of the loopback interface are real.

Tests of backoff, heartbeats and leases run coroutines with `run_virtual`. It never changes what happens, only when.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualLoop", "run_virtual"]

T = TypeVar("T")
GRACE_SECONDS = 0.01
"""How long the loop looks for real input before it believes that nothing will happen until the next timer."""
STUCK_SECONDS = 60.0
RESOLUTION_SECONDS = 1e-9
"""The loop runs timers this much early; jumping past it means that a timer that ran is also due."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the clock there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(STUCK_SECONDS)
            assert ready, f"nothing happened for {STUCK_SECONDS:.0f} s and nothing is due"
            return ready
        ready = super().select(min(timeout, GRACE_SECONDS))
        if not ready and timeout > 0:
            self.now += timeout + RESOLUTION_SECONDS
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
