"""How frames leave: the narrow interface between a connection and whatever carries it.

`TransportWire` writes WebSocket frames to an asyncio transport, all of one loop tick in one write; `AsgiWire` hands them to
a sender task. A wire knows bytes and room, never what a frame means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from unbroken.hub import LiveBatch

__all__ = ["CLOSE_SECONDS_MAX", "AsgiWire", "TransportWire", "Wire", "websocket_header"]

PIECES_BYTES_MIN: Final = 16 * 1024
"""From this size on a batch is sent in pieces, because copying it into one frame costs more than another buffer."""
CLOSE_SECONDS_MAX: Final = 5.0
"""How long a peer may take to answer our close frame."""


class Wire(Protocol):
    """The way out of one connection."""

    @property
    def full(self) -> bool:
        """Whether more than the bound of unsent bytes waits: nothing that can wait should be sent now."""
        ...

    @property
    def waiting_bytes(self) -> int:
        """Bytes accepted and not yet given to the operating system (or to the server that carries the socket)."""
        ...

    def bound(self, bytes_max: int) -> None:
        """From now on it is full beyond so many unsent bytes."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one text frame."""
        ...

    def send_batch(self, batch: LiveBatch) -> None:
        """Send the `messages` frame of a batch."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send what waits, then a close frame, then close."""
        ...

    def abort(self) -> None:
        """Drop the connection now, with whatever waits."""
        ...

    def pause_reading(self) -> None:
        """Take nothing more from the peer for now: backpressure."""
        ...

    def resume_reading(self) -> None:
        """Take from the peer again."""
        ...


def websocket_header(length: int) -> bytes:
    """The header of a final, unmasked, uncompressed text frame with a payload of `length` bytes (RFC 6455, section 5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


class TransportWire:
    """Writes frames to a transport; everything of one tick of the event loop goes out in one write."""

    __slots__ = (
        "_closed",
        "_flushing",
        "_loop",
        "_max",
        "_on_close",
        "_on_room",
        "_out",
        "_out_bytes",
        "_paused",
        "_transport",
        "on_resume",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        bytes_max: int,
        on_close: Callable[[int, str], None],
        on_room: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._max = bytes_max
        self._on_close = on_close
        self._on_room = on_room
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flushing = False
        self._paused = False
        self._closed = False
        self.on_resume: Callable[[], None] | None = None
        """Called in a step of its own when reading goes on; as long as it is set, the transport stays paused."""
        transport.set_write_buffer_limits(high=bytes_max, low=bytes_max // 4)

    @property
    def full(self) -> bool:
        return self._paused or self._out_bytes > self._max

    @property
    def waiting_bytes(self) -> int:
        return self._out_bytes + self._transport.get_write_buffer_size()

    def bound(self, bytes_max: int) -> None:
        if bytes_max != self._max and not self._transport.is_closing():
            self._max = bytes_max
            self._transport.set_write_buffer_limits(high=bytes_max, low=bytes_max // 4)

    def send(self, payload: bytes) -> None:
        self._put(websocket_header(len(payload)) + payload)

    def send_batch(self, batch: LiveBatch) -> None:
        if len(batch.body) >= PIECES_BYTES_MIN:
            prefix, body, suffix = batch.pieces
            self._put(websocket_header(len(prefix) + len(body) + len(suffix)) + prefix)
            self._put(body)
            self._put(suffix)
            return
        shared = batch.shared
        if shared is None:
            frame = batch.frame
            shared = batch.shared = websocket_header(len(frame)) + frame
        self._put(shared)

    def send_raw(self, data: bytes) -> None:
        """Send bytes that are frames already (pong, close)."""
        self._put(data)

    def _put(self, data: bytes) -> None:
        if self._closed or not data:
            return  # an empty piece at the end of `writelines` would keep asyncio's transport from ever closing
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, now."""
        self._flushing = False
        out = self._out
        if out:
            self._out = []
            self._out_bytes = 0
            if self._transport.is_closing():
                return  # nobody is there to take it, and uvloop's transport raises once it is closed
            if len(out) == 1:
                self._transport.write(out[0])
            else:
                self._transport.writelines(out)
        if not self._paused:
            self._on_room()

    def close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._on_close(code, reason)
            self.flush()
            self._closed = True

    def abort(self) -> None:
        self._closed = True
        self._transport.abort()

    def writing_paused(self, paused: bool) -> None:  # noqa: FBT001 - mirrors the transport's two callbacks
        """The transport says that its buffer is over its limit, or has drained."""
        self._paused = paused
        if not self.full:
            self._on_room()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.on_resume is not None:
            self._loop.call_soon(self.on_resume)
        elif not self._transport.is_closing():
            self._transport.resume_reading()


class AsgiWire:
    """Hands frames to the task that calls ASGI's `send`, which waits while the server's buffer is full."""

    def __init__(self, *, bytes_max: int) -> None:
        self._max = bytes_max
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._work = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self.closing: tuple[int, str] | None = None
        self.aborted = False
        self.on_abort: Callable[[], object] = _nothing
        """Called when the connection is dropped, for the task that may be stuck in sending."""

    @property
    def full(self) -> bool:
        return self._out_bytes > self._max

    @property
    def waiting_bytes(self) -> int:
        return self._out_bytes

    def bound(self, bytes_max: int) -> None:
        self._max = bytes_max

    def send(self, payload: bytes) -> None:
        if self.closing is None:
            self._out.append(payload)
            self._out_bytes += len(payload)
            self._work.set()

    def send_batch(self, batch: LiveBatch) -> None:
        self.send(batch.frame)

    def close(self, code: int, reason: str) -> None:
        if self.closing is None:
            self.closing = (code, reason)
            self._work.set()

    def abort(self) -> None:
        self._out.clear()
        self.aborted = True
        self.close(1006, "")
        self.on_abort()

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    async def may_read(self) -> None:
        """Wait until the peer's next frame is wanted."""
        await self._reading.wait()

    async def next(self) -> bytes | None:
        """The next frame to send; None when the connection is to be closed."""
        while not self._out:
            if self.closing is not None:
                return None
            self._work.clear()
            await self._work.wait()
        payload = self._out.popleft()
        self._out_bytes -= len(payload)
        return payload


def _nothing() -> None:
    """Nobody is sending yet."""
