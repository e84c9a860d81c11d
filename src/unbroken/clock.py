"""Wall time and randomness, injected wherever the product needs them.

Durations never come from here: they go through the event loop, so that a virtual-time loop can run them. `SystemClock` is
the real one; tests pass their own `Clock`.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A source of wall time and of chance."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z; may jump in either direction when the machine's clock is set."""
        ...

    @property
    def random(self) -> random.Random:
        """Randomness for jitter and names; never for secrets."""
        ...


class SystemClock:
    """The machine's own clock and an unseeded source of randomness."""

    __slots__ = ("_random",)

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - jitter, not secrets

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    @property
    def random(self) -> random.Random:
        return self._random
