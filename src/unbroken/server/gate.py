"""Whether a connection listens: for which reasons nothing is read from its peer for now.

A connection has one, in front of its wire. It knows reasons, never frames.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unbroken.server.wire import Wire

__all__ = ["BY_APPENDS", "BY_INBOX", "BY_TURN", "BY_WIRE", "FRAMES_PER_TURN", "Gate"]

BY_INBOX: Final = 1
BY_APPENDS: Final = 2
BY_WIRE: Final = 4
BY_TURN: Final = 8
"""Frames wait, appends are in flight, it does not take our answers, or it is the others' turn."""
FRAMES_PER_TURN: Final = 16
"""After so many frames that are done at once and bounded by nothing else, other connections come first."""


class Gate:
    """Open as long as there is no reason to keep it shut."""

    __slots__ = ("_frames", "_loop", "_wire", "reasons")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self.reasons = 0
        """Of those above, the ones that there are: nothing is to be read for now unless it is 0."""
        self._frames = 0

    @property
    def ours(self) -> bool:
        """Whether it is for our sake, so that the peer's silence means nothing."""
        return self.reasons & (BY_INBOX | BY_APPENDS) != 0

    def hold(self, reason: int) -> None:
        """Read nothing more from the peer while `reason` lasts."""
        if not self.reasons:
            self._wire.pause_reading()
        self.reasons |= reason

    def release(self, reason: int) -> None:
        """`reason` is over; read again when it was the last one."""
        if self.reasons & reason:
            self.reasons &= ~reason
            if not self.reasons:
                self._wire.resume_reading()

    def count(self) -> None:
        """A frame was done at once: now and then reading stops until the event loop has been round."""
        self._frames += 1
        if self._frames >= FRAMES_PER_TURN:
            self._frames = 0
            self.hold(BY_TURN)
            self._loop.call_soon(self.release, BY_TURN)
