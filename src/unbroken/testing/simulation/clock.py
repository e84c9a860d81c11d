"""A wall clock that runs with the event loop, and that a test may set back and forward while everything runs.

Give one to a server and another to a client: their clocks need not agree. It never touches durations.
"""

from __future__ import annotations

import asyncio
from random import Random

__all__ = ["SimulatedClock"]

BEGIN_MS = 1_764_000_000_000


class SimulatedClock:
    """The product's `Clock`, in the loop's time plus whatever it was set to; chance comes from `random`."""

    def __init__(self, random: Random, *, begin_ms: int = BEGIN_MS) -> None:
        self._random = random
        self._offset_ms = begin_ms

    @property
    def random(self) -> Random:
        return self._random

    def now_ms(self) -> int:
        return self._offset_ms + int(asyncio.get_running_loop().time() * 1000)

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back where `seconds` is negative."""
        self._offset_ms += int(seconds * 1000)
