"""What a `MockWebSocketServer` can do wrong, as values, and the record of what it did.

`MockWebSocketServer.inject` takes them. They never act by themselves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

__all__ = [
    "Abort",
    "Disconnect",
    "Duplicate",
    "Freeze",
    "Injected",
    "Malformed",
    "MockFault",
    "Oversized",
    "Reorder",
    "Silence",
    "Skip",
]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A closing handshake with this code."""

    code: int = 1012
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Abort:
    """The TCP connection goes without a closing handshake."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing more is sent on this connection, heartbeats neither; what comes is still read."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Half-open: nothing more is sent or read on this connection, and no closing handshake is answered."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A frame that is none."""

    data: str = "{not json"


@dataclass(frozen=True, slots=True)
class Oversized:
    """A frame beyond the limit."""

    bytes: int = 9 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A `messages` frame is sent twice."""


@dataclass(frozen=True, slots=True)
class Reorder:
    """A `messages` frame is sent behind the one that follows it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A `messages` frame is never sent."""


MockFault = Disconnect | Abort | Silence | Freeze | Malformed | Oversized | Duplicate | Reorder | Skip


class Injected:
    """A fault that waits for its moment; `bites` counts how often it happened."""

    def __init__(self, fault: MockFault, *, after_messages: int, times: int) -> None:
        self.fault = fault
        self.after_messages = after_messages
        self.bites = 0
        self._times = times
        self._changed = asyncio.Event()

    def due(self, delivered: int) -> bool:
        """Whether it happens now that so many messages have been sent since it was injected."""
        return self.bites < self._times and delivered >= self.after_messages

    def bite(self) -> None:
        self.bites += 1
        self._changed.set()

    async def bitten(self, times: int = 1) -> None:
        """Wait until it happened so often; bound it with `asyncio.timeout`."""
        while self.bites < times:
            self._changed.clear()
            await self._changed.wait()
