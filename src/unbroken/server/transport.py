"""A WebSocket on an asyncio transport of our own: what arrives goes through `websockets`' sans-I/O protocol to a connection.

It is used in two ways: put onto a transport whose handshake uvicorn and the application have done (`takeover`), or from
the first byte on (`standalone`). Parsing what arrives is the library's alone, however
tempting a shortcut may be; only the header in front of our shared outgoing frames is our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol

from unbroken.messages import Principal
from unbroken.server.connection import Connection
from unbroken.server.manager import RETRY_AFTER_SECONDS
from unbroken.server.wire import CLOSE_SECONDS_MAX, TransportWire

if TYPE_CHECKING:
    from unbroken.server.services import Services

__all__ = ["WebSocket"]

TEXT: Final = Opcode.TEXT
BINARY: Final = Opcode.BINARY
CONTINUATION: Final = Opcode.CONT


class WebSocket(asyncio.Protocol):
    """One WebSocket after its handshake. `on_lost` is called once, when the transport is gone."""

    __slots__ = ("_connection", "_conn", "_fragments", "_on_lost", "_transport", "_wire", "closing")

    def __init__(
        self,
        services: Services,
        principal: Principal,
        transport: asyncio.Transport,
        conn: Protocol,
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._transport = transport
        self._conn = conn
        self._on_lost = on_lost
        self._fragments: bytearray | None = None
        self.closing = False
        bytes_max = services.limits.connection_buffer_bytes_max
        self._wire = TransportWire(transport, bytes_max=bytes_max, on_close=self._send_close, on_room=self._room)
        self._connection = Connection(services, principal, self._wire)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on every whole message. A part of a long one is a sign of life too."""
        self._connection.heard = True
        conn = self._conn
        conn.receive_data(data)
        self.handle_events()

    def eof_received(self) -> bool:
        """The peer has closed its half: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone, for whatever reason."""
        self._connection.lost()
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

    def handle_events(self) -> None:
        """Handle what the parser has found, also before the first call of `data_received`."""
        conn = self._conn
        messages = [self._whole(cast("Frame", event)) for event in conn.events_received()]
        if messages:
            self._connection.receive(*[message for message in messages if message is not None])
        output = conn.data_to_send()
        if output and not self.closing:
            self._wire.send_raw(b"".join(output))  # pongs, and the echo of a close
            self._connection.crowded()
        if conn.parser_exc is not None or conn.close_rcvd is not None:
            self._wire.flush()
            self._connection.lost()
            self._transport.close()
            self._abort_later()

    def feed(self, message: bytes | str) -> None:
        """A whole message that was received before this object took over."""
        self._connection.receive(message)

    def _whole(self, frame: Frame) -> bytes | None:
        """The message that `frame` is or ends; None while fragments are outstanding, and for control frames."""
        opcode = frame.opcode
        if opcode is TEXT or opcode is BINARY:
            if frame.fin:
                return bytes(frame.data)
            self._fragments = bytearray(frame.data)
        elif opcode is CONTINUATION:
            assert self._fragments is not None, "the parser lets no continuation through without a beginning"
            self._fragments += frame.data
            if frame.fin:
                whole, self._fragments = bytes(self._fragments), None
                return whole
        return None

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
