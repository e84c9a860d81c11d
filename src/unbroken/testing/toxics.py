"""The faults of a network as values, and the record of what each of them did.

`FaultProxy` applies them; tests name them and ask afterwards whether they bit. They never touch a socket themselves. The
names are those that Toxiproxy made known.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Applied",
    "Bandwidth",
    "Direction",
    "HalfOpen",
    "Latency",
    "LimitData",
    "ResetPeer",
    "Slicer",
    "SlowClose",
    "Timeout",
    "Toxic",
]


class Direction(StrEnum):
    """Which way the bytes go: to the server, to the client, or either."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Latency:
    """Every byte arrives `seconds` later, give or take a random `jitter_seconds`; the order stays."""

    seconds: float
    jitter_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Not more than so many bytes a second on each connection."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class SlowClose:
    """The end of a connection is told so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Timeout:
    """A black hole: nothing passes, and nobody is told.

    What was sent meanwhile waits, as TCP would send it again, and passes when the toxic is removed. With `seconds` the
    connection is closed when it has been held so long.
    """

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ResetPeer:
    """Both ends get a TCP reset."""


@dataclass(frozen=True, slots=True)
class Slicer:
    """Data is cut into pieces of about `average_bytes`, `delay_seconds` apart."""

    average_bytes: int
    variation_bytes: int = 0
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitData:
    """Each connection is closed in order after so many bytes."""

    bytes: int


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """The server's side is gone, the client's stays open in silence: nobody tells the client."""


Toxic = Latency | Bandwidth | SlowClose | Timeout | ResetPeer | Slicer | LimitData | HalfOpen


class Applied:
    """A toxic in force (or waiting for its trigger), and how often it really bit.

    `bites` counts what the fault did to real traffic: pieces delayed, sliced or held, connections cut. A fault with no bite
    proves nothing: `assert applied.bites` belongs into every test that uses one.
    """

    def __init__(
        self, toxic: Toxic, direction: Direction, *, after_bytes: int, after_messages: int, times: int | None
    ) -> None:
        self.toxic = toxic
        self.direction = direction
        self.bites = 0
        self._bytes_left = after_bytes
        self._messages_left = after_messages
        self._times = times
        self._removed = False
        self.changed = asyncio.Event()

    @property
    def name(self) -> str:
        return type(self.toxic).__name__

    @property
    def active(self) -> bool:
        """Whether it acts on what passes now."""
        spent = self._times is not None and self.bites >= self._times
        return not self._removed and not spent and self._bytes_left <= 0 and self._messages_left <= 0

    def concerns(self, direction: Direction) -> bool:
        return self.direction in {Direction.BOTH, direction}

    def until_active(self, size: int) -> int:
        """Of `size` bytes that come now, how many pass before the fault begins."""
        if self._messages_left > 0:
            return size
        return max(min(self._bytes_left, size), 0)

    def passed(self, size: int) -> None:
        """So many bytes went by."""
        self._bytes_left -= size

    def message(self) -> None:
        """An observer has got one more message."""
        self._messages_left -= 1
        self.changed.set()

    def bite(self) -> None:
        self.bites += 1
        self.changed.set()

    def remove(self) -> None:
        """Heal: what is held goes on."""
        self._removed = True
        self.changed.set()

    async def bitten(self, times: int = 1) -> None:
        """Wait until it bit at least so often; bound it with `asyncio.timeout`."""
        while self.bites < times:
            self.changed.clear()
            await self.changed.wait()
