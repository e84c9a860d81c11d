"""What becomes of a run that takes down whoever executes it: it is taken over later each time, alone, and not for ever.

`History` counts, from what the stream tells; here is what follows from the count. The supervisor asks before each execution;
nothing here reads a stream or knows what is executed.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from unbroken.limits import Limits
from unbroken.messages import StreamState
from unbroken.runs.context import RunEnded

__all__ = ["Probation", "refuse_after_crashes"]

SUSPECT_CRASHES: Final = 2
"""One crash may be anybody's. From so many in a row without progress on, a run may be their cause."""


def refuse_after_crashes(crashes: int, limits: Limits) -> None:
    """Raise the end of a run that broke off `crashes` times in a row without getting on, when that is often enough."""
    if crashes >= limits.run_crashes_max:
        body = {"cause": "crashed_repeatedly", "crashes": crashes, "may_have_run": True}
        raise RunEnded(StreamState.INTERRUPTED, body)


class Probation:
    """Runs that may be the cause of crashes begin here one after the other, so that they do not pull each other down.

    Each has the place until it gets on, ends, or has lived for `run_crash_pause_seconds_max`. Belongs to one event loop.
    """

    def __init__(self, limits: Limits, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._place = asyncio.Lock()
        self._inside: object | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, run: object, crashes: int) -> None:
        """Wait until `run` may begin: at once for one that is no suspect, else a pause that doubles, and for its turn."""
        if crashes < SUSPECT_CRASHES:
            return
        longest = self._limits.run_crash_pause_seconds_max
        pause = min(self._limits.run_crash_pause_seconds * 2.0 ** (crashes - SUSPECT_CRASHES), longest)
        # by chance, so that of several suspects the cause is not always the last to begin
        await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
        await self._place.acquire()
        self._inside = run
        self._timer = asyncio.get_running_loop().call_later(longest, self.leave, run)

    def leave(self, run: object) -> None:
        """`run` got on, or is over: the next one may begin. Idempotent."""
        if self._inside is not run:
            return
        assert self._timer is not None
        self._timer.cancel()
        self._inside = None
        self._place.release()
