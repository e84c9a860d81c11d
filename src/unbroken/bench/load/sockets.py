"""The connections of the Python load client: a handshake, masked frames out, marked messages in.

`open_peer` gives a `Peer` that is ready; what it receives goes to the client's counts. It parses no frames of what arrives:
a message is found by its mark.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from websockets.frames import Frame, Opcode

if TYPE_CHECKING:
    from unbroken.bench.load.__main__ import Client

__all__ = ["Peer", "open_peer"]

MARK: Final = re.compile(rb"@@#(\d{4}):(\d{10}):([0-9a-f]{16}):")
MARK_BYTES: Final = 36
READY_SECONDS_MAX: Final = 20.0


class Peer(asyncio.Protocol):
    """One connection, of a producer or of a viewer."""

    def __init__(self, client: Client, stream: int, *, viewer: bool) -> None:
        self._client = client
        self.stream = stream
        self._viewer = viewer
        self.sent = self.got = 0
        self._rest = b""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upgraded = False
        self._transport: asyncio.Transport
        dialect, load = client.dialect, client.load
        self._ack = dialect.ack.encode()
        self._pad = "x" * (load.message_bytes - MARK_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        dialect = self._client.dialect
        path = (dialect.viewer_path if self._viewer else dialect.producer_path).replace("{s}", str(self.stream))
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self._client.port}"]
        if self._viewer and not dialect.upgrade:
            lines.append("Accept: text/event-stream")
        else:
            lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            lines.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
            if dialect.subprotocol:
                lines.append(f"Sec-WebSocket-Protocol: {dialect.subprotocol}")
        transport.write("\r\n".join([*lines, "", ""]).encode())

    def data_received(self, data: bytes) -> None:
        if self._viewer:
            self._client.meter.received_bytes += len(data)
        data = self._rest + data if self._rest else data
        if not self._ready.done():
            data = self._greeted(data)
        if self._ready.done():
            self._scan(data)
        else:
            self._rest = data

    def _greeted(self, data: bytes) -> bytes:
        """Go through the handshake; what is left behind it."""
        dialect = self._client.dialect
        if not self._upgraded:
            head, found, data_behind = data.partition(b"\r\n\r\n")
            if not found:
                return data
            if not head.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
                self._ready.set_exception(ConnectionError(f"the server refused: {data[:500]!r}"))
                return b""
            self._upgraded, data = True, data_behind
            if self._viewer and dialect.upgrade and dialect.viewer_frame:
                self._write(dialect.viewer_frame.replace("{s}", str(self.stream)))
        ready = (dialect.viewer_ready if self._viewer else dialect.producer_ready).encode()
        before, found, behind = data.partition(ready) if ready else (b"", b"", data)
        if found or not ready:
            self._ready.set_result(None)
            return behind
        return before

    def _scan(self, data: bytes) -> None:
        client = self._client
        if self._viewer:
            end = 0
            for match in MARK.finditer(data):
                end = match.end()
                client.viewed(self, int(match[1]), int(match[2]), int(match[3], 16))
            at = data.find(b"@", max(end, len(data) - MARK_BYTES + 1))
            self._rest = data[at:] if at >= 0 else b""
        else:
            refusal = client.dialect.refusal.encode()
            if refusal and refusal in data:
                client.meter.fault(f"an append was refused: {data[:300]!r}")
            self._rest = data[1 - len(self._ack) :] if len(self._ack) > 1 else b""
            if count := data.count(self._ack):
                client.acknowledged(self, count)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ready.done():
            self._ready.set_exception(ConnectionError("the server closed the connection"))

    def send_message(self, at_ns: int) -> None:
        """The next message, with its mark."""
        self.sent += 1
        text = f"@@#{self.stream:04d}:{self.sent:010d}:{at_ns:016x}:{self._pad}"
        frame = self._client.dialect.send_frame
        self._write(frame.replace("{s}", str(self.stream)).replace("{n}", str(self.sent)).replace("{t}", text))

    def _write(self, text: str) -> None:
        self._transport.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=True))

    async def ready(self) -> None:
        """Wait until the server has said what it says when it is ready."""
        async with asyncio.timeout(READY_SECONDS_MAX):
            await self._ready


async def open_peer(client: Client, stream: int, *, viewer: bool) -> Peer:
    """A connection that is ready."""
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(lambda: Peer(client, stream, viewer=viewer), "127.0.0.1", client.port)
    await peer.ready()
    return peer
