"""Who executes which run when: a run is executed by one process at a time, unless one could not know that it had lost it.

The tasks of the simulated catalog tell of their beginnings and ends; what a process could know follows from what was done
to it. It reads no stream: what the stream holds is the history's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unbroken.testing.simulation.server import Life

__all__ = ["Executions"]


class Executions:
    """The executions that are under way in one world; `violated` is told of two at once.

    A process that was frozen, or whose store did not answer, goes on for a moment with what others have taken over: what it
    writes is refused, and that ends it. `excuse_seconds` is how long after that it is excused.
    """

    def __init__(self, violated: Callable[[str], None], excuse_seconds: float) -> None:
        self._violated = violated
        self._excuse_seconds = excuse_seconds
        self._under_way: dict[str, list[Life]] = {}
        self.store_troubled_at: float | None = None
        """When the store last did not do what it was asked for."""

    @contextmanager
    def execute(self, stream: str, life: Life) -> Iterator[None]:
        """`life` executes the run of `stream`."""
        under_way = self._under_way.setdefault(stream, [])
        for other in under_way:
            if not other.dead and not self._excused(other):
                self._violated(f"{life.name} executes {stream} while {other.name} does")
        under_way.append(life)
        try:
            yield
        finally:
            under_way.remove(life)

    def _excused(self, life: Life) -> bool:
        now = asyncio.get_running_loop().time()
        since = max(life.able_since(), self.store_troubled_at or 0.0)
        disturbed = life.freezer.thawed_at is not None or self.store_troubled_at is not None or life.freezer.frozen
        return disturbed and now - since < self._excuse_seconds
