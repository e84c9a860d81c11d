"""The frames of one connection that wait for one that needs the store, in the order in which they came.

A connection has one, and it counts in `Unfinished` what is in it, the frame at work among it. It knows sizes and order; it
handles no frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from unbroken.server.gate import BY_INBOX, Gate

if TYPE_CHECKING:
    from unbroken.errors import OverloadedError, UnbrokenError
    from unbroken.identity import Principal
    from unbroken.limits import Limits
    from unbroken.protocol.frames import ClientFrame
    from unbroken.server.unfinished import Unfinished

__all__ = ["INBOX_MAX", "Inbox"]

INBOX_MAX: Final = 64
"""Frames that wait; beyond it nothing more is read from the peer."""


class _Connection(Protocol):
    """Whose inbox it is."""

    principal: Principal

    def fail(self, error: UnbrokenError) -> None: ...


class Inbox:
    """Takes what it is given; shuts the gate when that is enough, or all of the same owner's hold much."""

    __slots__ = (
        "_at_work",
        "_connection",
        "_frames",
        "_gate",
        "_limits",
        "_cleared",
        "_unfinished",
        "_waiting",
        "bytes",
    )

    excused = True
    """It is we who have not handled them yet: no frame is here for too long."""

    def __init__(self, connection: _Connection, gate: Gate, unfinished: Unfinished, limits: Limits) -> None:
        self._connection = connection
        self._gate = gate
        self._unfinished = unfinished
        self._limits = limits
        self._frames: list[tuple[ClientFrame, int]] = []
        self._at_work = 0
        self._waiting: asyncio.Timeout | None = None
        self._cleared = False
        self.bytes = 0
        """Of what waits, and of the frame at work."""

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: ClientFrame, size_bytes: int) -> None:
        """Take a frame behind the others; the connection may be given up because of it."""
        self._frames.append((frame, size_bytes))
        self._count(self.bytes + size_bytes)
        enough = len(self._frames) >= INBOX_MAX or self.bytes > self._limits.frame_bytes_max
        if enough or self._unfinished.crowded(self):
            self._gate.hold(BY_INBOX)

    def next(self) -> ClientFrame:
        """The first frame, which is at work until `done`."""
        frame, self._at_work = self._frames.pop(0)
        return frame

    def done(self) -> None:
        """The frame at work is handled: there may be room for more. An empty inbox never keeps the gate shut."""
        self._count(self.bytes - self._at_work)
        self._at_work = 0
        few = len(self._frames) < INBOX_MAX // 2 and self.bytes <= self._limits.frame_bytes_max // 2
        if few and not self._unfinished.crowded(self):
            self._gate.release(BY_INBOX)

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """A block in which the frame at work only waits: it is left as soon as the inbox is cleared."""
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting = waiting
                try:
                    yield
                finally:
                    self._waiting = None
        except TimeoutError:
            if not self._cleared:
                raise

    def clear(self) -> None:
        """Let go of everything; of the frame at work too, while it only waits."""
        self._cleared = True
        self._frames.clear()
        self._count(self._at_work)
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    # --- what is counted ----------------------------------------------------------------------------------------------

    @property
    def principal(self) -> Principal:
        """Whose connection it is."""
        return self._connection.principal

    @property
    def dispensable(self) -> bool:
        """Whether anything but a frame with which the store is at work is here."""
        return not self._cleared and (len(self._frames) > 0 or self._waiting is not None)

    def give_up(self, error: OverloadedError | None) -> None:
        """The owner holds too much: end the connection, and read on until the peer has seen why."""
        assert error is not None, "nothing waits here for too long"
        self._connection.fail(error)
        self.clear()
        self._gate.release(BY_INBOX)

    def _count(self, size_bytes: int) -> None:
        self.bytes = size_bytes
        self._unfinished.note(self, size_bytes, fresh=False)
