"""How far a run has come, for faults that are to come by progress and never by the clock.

Whoever acknowledges or delivers steps it, whoever breaks things waits for it. It knows nothing of what is counted.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

__all__ = ["Progress"]


class Progress:
    """Counts what has happened; belongs to one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._over = False
        self._numbers = count()
        self._waiting: list[tuple[int, int, asyncio.Event]] = []

    def step(self) -> None:
        self.count += 1
        while self._waiting and self._waiting[0][0] <= self.count:
            heapq.heappop(self._waiting)[2].set()

    def finish(self) -> None:
        """Nothing more will happen: nobody waits any longer."""
        self._over = True
        for _, _, event in self._waiting:
            event.set()

    async def reach(self, goal: int) -> bool:
        """Wait until so much has happened; False when it never will."""
        if self.count < goal and not self._over:
            event = asyncio.Event()
            heapq.heappush(self._waiting, (goal, next(self._numbers), event))
            await event.wait()
        return self.count >= goal
