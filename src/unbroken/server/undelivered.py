"""What was written to an HTTP connection and is not taken by its peer: a connection that stands still is cut off.

Each connection of `patience` has one, and in an application's own server each large answer (`direct`). Without it a transport
that is closed waits for ever for a peer that reads nothing, with all that was to be sent. It knows bytes and times.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

__all__ = ["TAKEN_BYTES_MIN", "Undelivered", "tells"]

TAKEN_BYTES_MIN: Final = 64 * 1024
"""What a reader has to take, unless it takes all, before its silence is over."""
_TCP_INFO_BYTES: Final = 192
_UNACKNOWLEDGED: Final = struct.Struct("=24xI")
_ACKNOWLEDGED: Final = struct.Struct("=120xQ")
"""Of Linux' `struct tcp_info`: segments that are on their way, and bytes that have ever been taken."""


class Undelivered:
    """Aborts `transport` when its peer has taken nothing much for `seconds` while something waits for it.

    What the peer takes is asked of the kernel where that tells it (Linux): what waits may be as much as before because more
    was written, and over TLS most of it waits where no transport says so. Elsewhere what waits has to become less.
    """

    def __init__(
        self, transport: asyncio.Transport, seconds: float, *, gone: Callable[[], bool] = lambda: False
    ) -> None:
        self._transport = transport
        self._gone = gone
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._encrypted = transport.get_extra_info("sslcontext") is not None
        self._left = 0
        self._taken: int | None = None
        self._was_silent = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Something was written: look after it until it is taken. Idempotent."""
        if self._timer is None and self._waits():
            self._begin()

    def taken(self) -> None:
        """The peer has taken most of what waited: whatever is left has its full time."""
        self.end()
        self.watch()

    def end(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _waits(self) -> bool:
        if self._transport.get_write_buffer_size():
            return True
        return self._encrypted and _ask(self._transport, _UNACKNOWLEDGED) not in (None, 0)

    def _begin(self) -> None:
        self._was_silent = False
        self._left = self._transport.get_write_buffer_size()
        self._taken = _ask(self._transport, _ACKNOWLEDGED)
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._seconds / 2, self._look)

    def _look(self) -> None:
        """Twice in a row, so that a process that stood still has let its peers read in between."""
        self.end()
        if self._gone() or not self._waits():
            return
        if self._takes():
            self._begin()
        elif not self._was_silent:
            self._was_silent = True
            self._wait()
        else:
            self._transport.abort()

    def _takes(self) -> bool:
        taken = _ask(self._transport, _ACKNOWLEDGED)
        if taken is not None and self._taken is not None:
            return taken - self._taken >= TAKEN_BYTES_MIN
        left = self._transport.get_write_buffer_size()
        return left > self._left or self._left - left >= TAKEN_BYTES_MIN  # beyond a bound nothing is written behind it


def tells(transport: asyncio.Transport) -> bool:
    """Whether the kernel says what the peer takes."""
    return _ask(transport, _ACKNOWLEDGED) is not None


def _ask(transport: asyncio.Transport, field: struct.Struct) -> int | None:
    """What the kernel says of the connection; None where it does not."""
    found = transport.get_extra_info("socket")
    if sys.platform != "linux" or found is None:
        return None
    try:
        value: int = field.unpack_from(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES))[0]
    except (OSError, struct.error):
        return None
    return value
