"""A WebSocket on an asyncio transport of our own: what arrives goes through `websockets`' sans-I/O protocol to a connection.

It is used in two ways: put onto a transport whose handshake uvicorn and the application have done (`takeover`), or from
the first byte on (`standalone`). Of the protocol only two things are our own: the header in front of our shared outgoing
frames, and the short way for whole text frames (`frames`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol

from unbroken.errors import OverloadedError, UnbrokenError
from unbroken.identity import Principal
from unbroken.quotas import Bucket
from unbroken.server.connection import Connection
from unbroken.server.manager import RETRY_AFTER_SECONDS
from unbroken.server.refusal import CLOSE_SILENT
from unbroken.server.wire import CLOSE_SECONDS_MAX, TransportWire

if TYPE_CHECKING:
    from unbroken.server.services import Services

__all__ = ["WebSocket"]

TEXT: Final = Opcode.TEXT
BINARY: Final = Opcode.BINARY
CONTINUATION: Final = Opcode.CONT
SLICE_BYTES_MIN: Final = 1024
SLICE_BYTES_MAX: Final = 16 * 1024
"""What is given to the parser at once: after each of them the rest of a read can be left as it came.

Larger ones for whoever was not held lately: a kilobyte can be forty frames, each of which is parsed.
"""
FRAGMENT_BYTES_MIN: Final = 1024
"""A fragment with less in it, unless it is the last of its message, counts as a control frame does."""
LATE_FRAMES_MAX: Final = 64
"""So many are looked through behind our close for the peer's own."""


class WebSocket(asyncio.Protocol):
    """One WebSocket after its handshake, in uvicorn's `connections` until the transport is gone; then `on_lost` is called."""

    __slots__ = (
        "_conn",
        "_connection",
        "_connections",
        "_controls",
        "_deaf",
        "_early",
        "_fragments",
        "_fresh",
        "_late",
        "_limits",
        "_on_lost",
        "_part_bytes",
        "_rest",
        "_slice",
        "_transport",
        "_unfinished",
        "_wire",
        "closing",
    )

    def __init__(
        self,
        services: Services,
        principal: Principal,
        transport: asyncio.Transport,
        conn: Protocol,
        connections: set[object],
        on_lost: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self._transport = transport
        self._conn = conn
        self._connections = connections
        self._on_lost = on_lost
        self._early: deque[bytes | str] | None = None
        self._fragments: bytearray | None = None
        self._unfinished = services.connections.unfinished
        self._part_bytes = 0
        self._fresh = self._deaf = False
        self._rest = b""
        self._slice = SLICE_BYTES_MIN
        self._late = 0
        self.closing = False
        self._limits = services.limits
        self._controls: Bucket | None = None
        bytes_max = self._limits.connection_buffer_bytes_max
        self._wire = TransportWire(transport, bytes_max=bytes_max, on_close=self._send_close, on_room=self._room)
        self._connection = Connection(services, principal, self._wire)
        connections.add(self)  # so that uvicorn's shutdown closes it our way

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on every whole message; what comes after the connection has enough stays unparsed.

        A part of a long message is a sign of life too.
        """
        if self._deaf:
            return
        self._connection.heard = True
        if self._early or self._rest:
            self._rest += data
            self._note_part()
            return
        conn, connection = self._conn, self._connection
        size, done, over, step = len(data), 0, False, self._slice
        while done < size and not connection.held and not over:
            conn.receive_data(data[done : done + step])
            done += step
            over = self._handle_events()
            if done < size:
                self._slice = step = min(2 * step, SLICE_BYTES_MAX)
        if connection.held:
            self._slice = SLICE_BYTES_MIN
        if done < size and not over:
            self._rest = data[done:]
            self._wire.on_resume = self._go_on
        connection.read_ends()
        if over:
            self._end()
        elif conn.reader.buffer or self._fragments or self._rest or self._part_bytes:
            self._note_part()

    def eof_received(self) -> bool:
        """The peer has closed its half: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone, for whatever reason."""
        self._deaf = True
        self._connection.lost()
        self._leave()
        self._unfinished.forget(self)
        self._connections.discard(self)
        if self._on_lost is not None:
            self._on_lost(exc)

    def pause_writing(self) -> None:
        """The transport's buffer is over its bound."""
        self._wire.writing_paused(True)  # noqa: FBT003

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        self._connection.heard = True  # it has taken something: a sign of life
        self._wire.writing_paused(False)  # noqa: FBT003

    def _room(self) -> None:
        self._connection.writable()

    # --- frames -------------------------------------------------------------------------------------------------------

    def _handle_events(self) -> bool:
        """Handle what the parser has found; whether nothing that the peer sends counts any more."""
        conn = self._conn
        frames = cast("list[Frame]", conn.events_received())
        if self.closing:
            self._late += len(frames)
        messages: list[bytes] = []
        for frame in frames:
            if frame.fin and (frame.opcode is TEXT or frame.opcode is BINARY):
                messages.append(bytes(frame.data))
            elif (message := self._part(frame)) is not None:
                messages.append(message)
        if messages:
            self._fresh = True
            if self._part_bytes > SLICE_BYTES_MAX:
                self._note_part()  # of what is whole now no byte is to count twice
            self._connection.receive(*messages)
        if self._flooded:
            self.give_up(OverloadedError("too many control frames", limit="control_frames_per_second_max"))
        output = conn.data_to_send()
        if output and not self.closing:
            self._wire.send_raw(b"".join(output))  # pongs, and the echo of a close
            self._connection.crowded()
        over = conn.parser_exc is not None or conn.close_rcvd is not None
        if self._late > LATE_FRAMES_MAX and not over:
            self._ignore()
        return over or self._deaf

    def _end(self) -> None:
        if self._deaf:
            return  # our close is on its way, and has its time
        self._wire.flush()
        self._connection.lost()
        self._transport.close()
        self._abort_later()

    def begin(self, early: Collection[bytes | str], fragments: bytes | None) -> None:
        """Take what was received before this object took over: whole messages, then the beginning of another."""
        self._fragments = None if fragments is None else bytearray(fragments)
        if early:
            self._early = deque(early)
            self._go_on()
        self._note_part()

    def _go_on(self) -> None:
        """Hand on what was kept back, as far as the connection takes it; then read again."""
        connection, wire, early = self._connection, self._wire, self._early
        wire.on_resume = self._go_on
        while early and not connection.held:
            connection.receive(early.popleft())
        connection.read_ends()
        if connection.held:
            return
        wire.on_resume = self._early = None
        rest, self._rest = self._rest, b""
        self.data_received(rest)
        if not connection.held:
            wire.resume_reading()

    def _leave(self) -> None:
        """Let go of what was kept back."""
        self._wire.on_resume = self._early = None
        self._rest = b""

    def _part(self, frame: Frame) -> bytes | None:
        """The message that a fragment ends; None while others are outstanding, and for control frames."""
        if frame.opcode is CONTINUATION:
            assert self._fragments is not None, "the parser lets no continuation through without a beginning"
            self._fragments += frame.data
            if frame.fin:
                whole, self._fragments = bytes(self._fragments), None
                return whole
            self._count_fragment(frame)
        elif frame.opcode is TEXT or frame.opcode is BINARY:
            self._fragments = bytearray(frame.data)
            self._count_fragment(frame)
        else:
            self._count_control()
        return None

    # --- what has come and is not handed on yet --------------------------------------------------------------------------

    @property
    def principal(self) -> Principal:
        """Whose connection it is."""
        return self._connection.principal

    @property
    def excused(self) -> bool:
        """Whether the rest of a frame is not read yet for reasons of our own."""
        return not self._connection.reading

    @property
    def dispensable(self) -> bool:
        """Whether what comes is still kept."""
        return not self._deaf

    def give_up(self, error: OverloadedError | None) -> None:
        """Close, for `error` or because a frame took too long; what there is of it is gone, and what comes is not kept."""
        if error is not None:
            self.refuse(error)
        else:
            self.close(CLOSE_SILENT, "a frame took too long")
        self._ignore()

    def _ignore(self) -> None:
        """Look at nothing more that comes, so that it costs nothing; we have said our close."""
        if self._deaf:
            return
        self._deaf = True
        self._unfinished.forget(self)
        self._leave()
        self._fragments = None
        self._conn.reader.discard()
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()  # the peer's answer to our close would be part of its frame

    def _note_part(self) -> None:
        fresh, self._fresh = self._fresh, False
        kept = len(self._rest) + sum(map(len, self._early or ()))
        self._part_bytes = kept + len(self._conn.reader.buffer) + len(self._fragments or b"")
        self._unfinished.note(self, self._part_bytes, fresh=fresh)

    # --- control frames -----------------------------------------------------------------------------------------------

    def _count_fragment(self, frame: Frame) -> None:
        """One with next to nothing in it costs its sender nothing, and us as much as any."""
        if len(frame.data) < FRAGMENT_BYTES_MIN:
            self._count_control()

    def _count_control(self) -> None:
        """A ping costs its sender nothing and us an answer."""
        rate = self._limits.control_frames_per_second_max
        controls = self._controls = self._controls or Bucket(rate, asyncio.get_running_loop().time())
        controls.take(1)

    @property
    def _flooded(self) -> bool:
        controls = self._controls
        return controls is not None and not self.closing and controls.wait(asyncio.get_running_loop().time()) > 0

    def refuse(self, error: UnbrokenError) -> None:
        """Tell the peer what is wrong and close."""
        self._connection.fail(error)

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """Close with `code`; what was sent before goes out first."""
        self._connection.close(code, reason)

    def shutdown(self) -> None:
        """uvicorn stops, and asks each connection to close."""
        self._connection.dismiss(RETRY_AFTER_SECONDS)

    def _send_close(self, code: int, reason: str) -> None:
        self.closing = True
        conn = self._conn
        if conn.close_sent is None and conn.parser_exc is None:
            conn.send_close(code, reason[:120])
        self._wire.send_raw(b"".join(conn.data_to_send()))  # ours, or the echo of the peer's
        self._abort_later()

    def _abort_later(self) -> None:
        """A peer that takes nothing any more would keep a closing transport for ever."""
        asyncio.get_running_loop().call_later(CLOSE_SECONDS_MAX, self._transport.abort)
