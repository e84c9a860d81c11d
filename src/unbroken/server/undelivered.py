"""What was written to an HTTP connection and is not taken by its peer: a connection that stands still is cut off.

Each connection of `patience` has one. Without it a transport that is closed waits for ever for a peer that reads nothing,
with all that was to be sent. It knows bytes and times, never what they are.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["Undelivered"]

TAKEN_BYTES_MIN: Final = 64 * 1024
"""What a reader has to take, unless it takes all, before its silence is over."""


class Undelivered:
    """Aborts `transport` when its peer has taken nothing much for `seconds` while something waits for it."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self._was_silent = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Something was written: look after it until it is taken. Idempotent."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._begin()

    def end(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._was_silent = False
        self._waiting = self._transport.get_write_buffer_size()
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._seconds / 2, self._look)

    def _look(self) -> None:
        """Twice in a row, so that a process that stood still has let its peers read in between."""
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            return
        if self._waiting - waiting >= TAKEN_BYTES_MIN:
            self._begin()
        elif not self._was_silent:
            self._was_silent = True
            self._wait()
        else:
            self._transport.abort()
