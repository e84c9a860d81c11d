"""How long the command of `unbroken run` may be silent, and how long it may last.

The verb puts a `Watch` between the command and its outbox, and waits for it beside the command. It stops nothing itself.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from unbroken.cli.exits import UsageError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.runs.program import Sink

__all__ = ["UNBOUNDED", "Bounds", "Watch"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Times after which the command is stopped."""

    idle_timeout: Annotated[
        float | None, Parameter(help="Seconds without output after which the command is stopped, as timed out.")
    ] = None
    total_timeout: Annotated[
        float | None, Parameter(help="Seconds after which the command is stopped, as timed out.")
    ] = None
    grace: Annotated[float, Parameter(help="Seconds that a command has to stop before it is killed.")] = (
        DEFAULT_LIMITS.run_grace_seconds
    )

    def check(self) -> None:
        """`UsageError` for a time that is none."""
        most = DEFAULT_LIMITS.run_seconds_max
        for name, seconds in (("--idle-timeout", self.idle_timeout), ("--total-timeout", self.total_timeout)):
            if seconds is not None and not 0 < seconds <= most:
                raise UsageError(f"{name} is above 0 and at most {most:.0f} seconds")
        if not 0 <= self.grace <= most:
            raise UsageError(f"--grace is at least 0 and at most {most:.0f} seconds")


UNBOUNDED: Final = Bounds()


class Watch:
    """A `Sink` in front of another, that knows when the command was last heard of."""

    def __init__(self, sink: Sink, bounds: Bounds) -> None:
        self._sink = sink
        self._bounds = bounds
        self._begun_at = self._heard_at = time.monotonic()

    @property
    def partial(self) -> bool:
        return self._sink.partial

    def output(self, kind: str, data: bytes) -> None:
        """As `Sink.output`; called by the thread that reads."""
        self.heard()
        self._sink.output(kind, data)

    def flush(self) -> None:
        self._sink.flush()

    def heard(self) -> None:
        """Silence begins anew, as when the command goes on after it was stopped."""
        self._heard_at = time.monotonic()

    async def expired(self) -> dict[str, int | str | float]:
        """Wait until one of the times is over; the reason with which a stream ends then. Without any it waits for ever."""
        idle, total = self._bounds.idle_timeout, self._bounds.total_timeout
        if idle is None and total is None:
            await asyncio.Event().wait()
        while True:
            now = time.monotonic()
            left = []
            if total is not None:
                if self._begun_at + total <= now:
                    return {"limit": "total", "seconds": total}
                left.append(self._begun_at + total - now)
            if idle is not None:
                if self._heard_at + idle <= now:
                    return {"limit": "idle", "seconds": idle}
                left.append(self._heard_at + idle - now)
            await asyncio.sleep(min(left))
