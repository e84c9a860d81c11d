"""One connection of the simulated network: two transports, and between them two pipes with time, windows and faults.

`SimulatedNetwork` makes them. Bytes arrive in order, each once, or not at all; when and in which pieces is up to the
network's chance.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbroken.testing.simulation.network import NetworkPath

__all__ = ["Link", "SimulatedTransport"]

SEGMENT_BYTES = 16 * 1024
HIGH_WATER_BYTES = 64 * 1024
Address = tuple[str, int]


class _Socket:
    """As much of a socket as libraries ask a transport for."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, own: Address, peer: Address) -> None:
        self._own, self._peer = own, peer

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address:
        return self._peer

    def setsockopt(self, *_: object) -> None:
        """No option changes anything here."""

    def fileno(self) -> int:
        return -1


class _Pipe:
    """One direction. `sink` is the transport at its end, `source` the one at its beginning."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self._underway = 0
        self._window = link.path.window_bytes
        self._arrives_at = 0.0
        self._held: list[Callable[[], None]] = []
        self._ending = False
        self.source: SimulatedTransport
        self.sink: SimulatedTransport

    def put(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if piece:
                self._waiting.append(piece)
                self.waiting_bytes += len(piece)
        self._pump()

    def end(self) -> None:
        """Nothing follows: the peer is told once everything before has arrived."""
        self._ending = True
        self._pump()

    def taken(self, size: int) -> None:
        """The sink's protocol has taken so many bytes: there is room on the way."""
        self._underway -= size
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._underway < self._window:
            piece = self._waiting.popleft()
            most = min(self._link.path.segment(), self._window - self._underway)
            if len(piece) > most:
                self._waiting.appendleft(piece[most:])
                piece = piece[:most]
            self.waiting_bytes -= len(piece)
            self._underway += len(piece)
            self.later(_arrival(self.sink, piece))
        if self._ending and not self._waiting:
            self._ending = False
            self.later(self.sink.ended)
        self.source.drained()

    def later(self, arrive: Callable[[], None], *, lost_in_hole: bool = False) -> None:
        """Let something arrive after everything that was sent before."""
        self._arrives_at = max(self._loop.time() + self._link.path.delay(), self._arrives_at)
        # what is on the way belongs to nobody: it arrives also while whoever sent it is frozen
        self._loop.call_at(self._arrives_at, self._arrive, arrive, lost_in_hole, context=Context())

    def _arrive(self, arrive: Callable[[], None], lost_in_hole: bool) -> None:  # noqa: FBT001 - called by the loop
        path = self._link.path
        if path.hole is None and not self._held:
            arrive()
            return
        path.swallowed += 1
        if not lost_in_hole:
            self._held.append(arrive)
            path.on_heal(self._retry)

    def _retry(self) -> None:
        """The hole is over: what waited in it is sent again, in order."""
        held, self._held = self._held, []
        for arrive in held:
            self.later(arrive)


def _arrival(sink: SimulatedTransport, piece: bytes) -> Callable[[], None]:
    return lambda: sink.arrived(piece)


class Link:
    """One connection over a `path`."""

    def __init__(self, path: NetworkPath, client: Address, server: Address) -> None:
        self.path = path
        forth, back = _Pipe(self), _Pipe(self)
        self.client = SimulatedTransport(self, forth, back, (client, server))
        self.server = SimulatedTransport(self, back, forth, (server, client))
        forth.source = back.sink = self.client
        forth.sink = back.source = self.server

    @property
    def open(self) -> bool:
        """Whether either end believes in it."""
        return not (self.client.gone and self.server.gone)

    def reset(self) -> None:
        """Both ends are told at once that the connection is broken; what was on the way is lost."""
        for end in (self.client, self.server):
            end.lose(ConnectionResetError("the connection was cut"))

    def ended(self) -> None:
        """An end is gone."""
        if not self.open:
            self.path.links.pop(self, None)


class SimulatedTransport(asyncio.Transport):
    """One end of a connection, as asyncio's own: buffered, paused and resumed, closed or aborted."""

    def __init__(self, link: Link, out: _Pipe, into: _Pipe, addresses: tuple[Address, Address]) -> None:
        own, peer = addresses
        super().__init__({"socket": _Socket(own, peer), "sockname": own, "peername": peer})
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._out = out
        self._into = into
        self._protocol: asyncio.BaseProtocol
        self._inbox: deque[bytes] = deque()
        self._reading = True
        self._taking = False
        self._closing = False
        self._eof_sent = False
        self._eof_received = False
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._writing_paused = False
        self._unanswered = False
        self._context: Context | None = None
        self.gone = False
        """Whether this end exists no more: whatever arrives for it is answered with a reset, if it is answered."""
        self.mute = False
        """Whether the machine of this end is off: nothing is answered."""

    def begin(self, protocol: asyncio.BaseProtocol, context: Context | None = None) -> None:
        """The connection stands. With `context`, which is its own, the protocol is told of everything in there."""
        self._protocol = protocol
        self._context = context
        self._inside(self._made)

    def _made(self) -> None:
        protocol = self._protocol
        protocol.connection_made(self)
        self._take_soon()

    def _inside(self, step: Callable[[], None]) -> None:
        """Do it in the process of this end, at once or when that runs again."""
        if self._context is None:
            step()
        else:
            self._loop.call_soon(step, context=self._context)

    # --- what the network does ---------------------------------------------------------------------------------------

    def arrived(self, piece: bytes) -> None:
        if self.gone:
            self._answer_stranger()
        else:
            self._inbox.append(piece)
            self._inside(self._take)

    def ended(self) -> None:
        """The peer sends no more."""
        if self.gone:
            return
        self._eof_received = True
        self._inside(self._take)

    def drained(self) -> None:
        """Something of what waited here is on its way."""
        if self._writing_paused and self._out.waiting_bytes <= self._low and not self.gone:
            self._writing_paused = False
            self._inside(self._room)
        if self._closing and not self.gone and not self._out.waiting_bytes:
            self._loop.call_soon(self.lose, None)

    def lose(self, error: Exception | None) -> None:
        """This end is gone; its protocol is told in a step of its own."""
        if self.gone:
            return
        self.gone = self._closing = True
        self._inbox.clear()
        self._link.ended()
        self._loop.call_soon(self._protocol.connection_lost, error, context=self._context)

    def power_off(self) -> None:
        """The machine of this end is gone, without a word to the peer."""
        self.mute = True
        self.lose(ConnectionResetError("this machine was switched off"))

    def power_on(self) -> None:
        """The machine is there again: what was sent to it meanwhile is sent once more, and answered."""
        self.mute = False
        if self._unanswered:
            self._answer_stranger()

    def _answer_stranger(self) -> None:
        self._unanswered = self.mute
        if not self.mute:
            peer = self._out.sink
            self._out.later(lambda: peer.lose(ConnectionResetError("the peer knows nothing of it")), lost_in_hole=True)

    def _room(self) -> None:
        self._tell(asyncio.Protocol.resume_writing)

    def _take_soon(self) -> None:
        if self._reading and (self._inbox or self._eof_received):
            self._loop.call_soon(self._take, context=self._context)

    def _take(self) -> None:
        """Give the protocol what has arrived, as long as it reads."""
        if self._taking:
            return
        self._taking = True
        try:
            while self._inbox and self._reading and not self.gone:
                piece = self._inbox.popleft()
                self._give(piece)
                self._into.taken(len(piece))
        finally:
            self._taking = False
        if self._eof_received and not self._inbox and self._reading and not self.gone:
            self._eof_received = False
            if not self._tell(asyncio.Protocol.eof_received):
                self.close()

    def _give(self, piece: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            while piece:
                place = memoryview(protocol.get_buffer(len(piece)))
                size = min(len(place), len(piece))
                place[:size] = piece[:size]
                protocol.buffer_updated(size)
                piece = piece[size:]
        else:
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(piece)

    def _tell(self, method: Callable[[asyncio.Protocol], object]) -> object:
        return getattr(self._protocol, method.__name__)()

    # --- asyncio.Transport -------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.writelines([bytes(data)])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[int]]) -> None:
        pieces = [bytes(data) for data in list_of_data]
        if self._closing or self._eof_sent:
            return
        self._out.put([b"".join(pieces)])
        if self is self._link.server:
            self._link.path.waiting_most = max(self._link.path.waiting_most, self._out.waiting_bytes)
        if self._out.waiting_bytes > self._high and not self._writing_paused:
            self._writing_paused = True
            self._tell(asyncio.Protocol.pause_writing)

    def write_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._out.end()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self.drained()

    def abort(self) -> None:
        if not self.gone:
            peer = self._out.sink
            self._out.later(lambda: peer.lose(ConnectionResetError("the peer has aborted")), lost_in_hole=True)
            self.lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._take_soon()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._out.waiting_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low
