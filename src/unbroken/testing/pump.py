"""One direction of one proxied connection: reads, lets the toxics act, writes.

`FaultProxy` runs two for each connection. It never holds more than its bound and never changes a byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Protocol

from unbroken.testing.toxics import (
    Applied,
    Bandwidth,
    Direction,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)

__all__ = ["Connection", "Faults", "Pump"]

READ_BYTES = 16 * 1024
PIECES_MAX = 64
"""Pieces on their way, so that latency delays without slowing: at most 1 MiB in each direction."""


class Connection(Protocol):
    """What a pump can do to the connection that it is half of."""

    silent: bool
    """Nothing more is told to the client: the server is gone without a word."""

    def reset(self) -> None: ...

    def drop_server(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Faults:
    """The toxics of the proxy, and the chance that they share."""

    applied: list[Applied]
    random: Random


class _CutError(Exception):
    """The connection was cut by a toxic."""


class Pump:
    """Moves bytes from `reader` to `writer` until the end of either, or until a toxic cuts the connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        faults: Faults,
        connection: Connection,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._direction = direction
        self._faults = faults
        self._connection = connection
        self._total = 0
        self._limited = False
        self._due = 0.0
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_MAX)

    async def run(self) -> None:
        """Return when this direction is over; a connection cut by either end is an ordinary end."""
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                await self._read()
                await self._pieces.put((self._due, b""))
                await writing
            if self._limited:
                self._connection.close()
        except* (_CutError, OSError):
            pass

    async def _read(self) -> None:
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError:
                if not self._connection.silent:
                    self._connection.reset()
                raise
            if not data:
                return
            while data and not self._limited:
                data = await self._pass(data)
            if self._limited:
                return

    async def _pass(self, data: bytes) -> bytes:
        """Let the toxics act on the beginning of `data`; gives the rest, for which other toxics may be active."""
        early = min([applied.until_active(len(data)) or len(data) for applied in self._relevant()], default=len(data))
        data, rest = data[:early], data[early:]
        for applied in [applied for applied in self._relevant() if applied.active]:
            data = await self._act(applied, data)
        for applied in self._relevant():
            applied.passed(len(data))
        self._total += len(data)
        for piece in self._slices(data):
            await self._pieces.put((self._due, piece))
        return rest

    async def _act(self, applied: Applied, data: bytes) -> bytes:
        """What one toxic leaves of `data`; those that cut the connection raise."""
        match applied.toxic:
            case Latency(seconds, jitter):
                delay = max(seconds + self._faults.random.uniform(-jitter, jitter), 0.0)
                self._due = max(self._due, _now() + delay)
                applied.bite()
            case Timeout(seconds):
                await self._held(applied, seconds)
            case ResetPeer():
                applied.bite()
                self._connection.reset()
                raise _CutError
            case HalfOpen():
                applied.bite()
                self._connection.drop_server()
                raise _CutError
            case LimitData(limit) if self._total + len(data) >= limit:
                applied.bite()
                self._limited = True
                return data[: limit - self._total]
            case _:
                return data  # acts where pieces are cut or written, or at the end
        return data

    async def _held(self, applied: Applied, seconds: float | None) -> None:
        """Wait until the toxic is removed; with `seconds`, not longer, and then the connection ends."""
        applied.bite()
        try:
            async with asyncio.timeout(seconds):
                while applied.active:
                    applied.changed.clear()
                    await applied.changed.wait()
        except TimeoutError:
            self._connection.reset()
            raise _CutError from None

    def _slices(self, data: bytes) -> list[bytes]:
        slicer = next((applied for applied in self._relevant() if applied.active and _slices(applied)), None)
        if slicer is None or not isinstance(slicer.toxic, Slicer):
            return [data] if data else []
        average, variation = slicer.toxic.average_bytes, slicer.toxic.variation_bytes
        pieces: list[bytes] = []
        while data:
            size = max(average + self._faults.random.randint(-variation, variation), 1)
            pieces.append(data[:size])
            data = data[size:]
        if len(pieces) > 1:
            slicer.bite()
        return pieces

    async def _write(self) -> None:
        while True:
            due, piece = await self._pieces.get()
            if (wait := due - _now()) > 0:
                await asyncio.sleep(wait)
            if not piece:
                await self._finish()
                return
            for applied in [applied for applied in self._relevant() if applied.active]:
                match applied.toxic:
                    case Bandwidth(rate):
                        applied.bite()
                        await asyncio.sleep(len(piece) / rate)
                    case Slicer(_, _, delay) if delay > 0:
                        await asyncio.sleep(delay)
                    case _:
                        continue
            self._writer.write(piece)
            await self._writer.drain()

    async def _finish(self) -> None:
        """Tell the end of this direction, late where that is the fault."""
        for applied in [applied for applied in self._relevant() if applied.active]:
            if isinstance(applied.toxic, SlowClose):
                applied.bite()
                await asyncio.sleep(applied.toxic.seconds)
        if not self._connection.silent and self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    def _relevant(self) -> list[Applied]:
        return [applied for applied in self._faults.applied if applied.concerns(self._direction)]


def _slices(applied: Applied) -> bool:
    return isinstance(applied.toxic, Slicer)


def _now() -> float:
    return asyncio.get_running_loop().time()
