"""`MockWebSocketServer`: a server of `unbroken.v1` in one object, that misbehaves on command.

Tests of clients use it, the product's own and those of applications. It keeps its streams in memory and never does anything
wrong that it was not asked to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from unbroken.clock import Clock, SystemClock
from unbroken.errors import VersionError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.protocol import negotiation
from unbroken.protocol.frames import ClientFrame, Hello
from unbroken.testing.mock_connection import MockConnection
from unbroken.testing.mock_faults import Injected, MockFault
from unbroken.testing.mock_log import MockLog, MockStream

__all__ = ["MockWebSocketServer", "Script"]

CONNECTIONS_KEPT = 100

Script = Callable[[MockConnection], Awaitable[None]]


@dataclass(slots=True)
class _Refusal:
    status: int
    headers: Mapping[str, str]
    body: bytes
    times: int


class MockWebSocketServer:
    """Speaks `unbroken.v1` on a loopback port: subscribe, append, create, cancel, lease, heartbeat.

    Use it as `async with MockWebSocketServer() as server` and connect to `server.url`. `log` holds the streams: write to
    them with `write`, look at them afterwards. `inject` makes it misbehave when so many messages were sent, `refuse` turns
    handshakes away, `latency_seconds` delays every frame. With `script` it does nothing but run that for each connection:
    `MockConnection.send` and `receive` then speak in frames, or in any bytes.
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        messages_per_frame: int = 100,
        script: Script | None = None,
        ssl: tls.SSLContext | None = None,
        protocols: tuple[str, ...] = negotiation.SUPPORTED,
    ) -> None:
        self.limits = limits
        self.log = MockLog(clock or SystemClock(), limits)
        self.connections: list[MockConnection] = []
        self._all: deque[MockConnection] = deque(maxlen=CONNECTIONS_KEPT)
        self.accepted = 0
        self.refused = 0
        self.delivered = 0
        self.latency_seconds = 0.0
        self.ignore_pause = False
        self.messages_per_frame = messages_per_frame
        self.port = 0
        self._script = script
        self._ssl = ssl
        self._protocols = protocols
        self._refusals: list[_Refusal] = []
        self._injected: list[tuple[int, Injected]] = []
        self._server: Server | None = None
        self._arrived = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{'http' if self._ssl is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def history(self) -> list[ClientFrame]:
        """What clients sent lately, over all connections, each connection's frames in order."""
        return [frame for connection in self._all for frame in connection.received]

    # --- what a test does --------------------------------------------------------------------------------------------

    def write(self, stream: str, *texts: str, close: str | None = None) -> MockStream:
        """Append texts to a stream, which is created when it is missing, and end it where `close` names a state."""
        written = self.log.write(stream, *texts, close=close)
        self.changed(stream, state=close is not None)
        return written

    def changed(self, stream: str, *, state: bool = True) -> None:
        """A stream was changed behind the server's back: tell the subscriptions."""
        for connection in self.connections:
            connection.stream_changed(stream, state=state)

    def inject(self, fault: MockFault, *, after_messages: int = 0, times: int = 1) -> Injected:
        """Let a fault happen at the next `messages` frame after so many more messages were sent, over all connections."""
        injected = Injected(fault, after_messages=after_messages, times=times)
        self._injected.append((self.delivered, injected))
        return injected

    def due(self) -> Injected | None:
        """The fault whose moment has come; one at a time."""
        for since, injected in self._injected:
            if injected.due(self.delivered - since):
                return injected
        return None

    def refuse(
        self, status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"", times: int = 1
    ) -> None:
        """Answer the next handshakes with an HTTP error."""
        self._refusals.append(_Refusal(status, headers or {}, body, times))

    async def disconnect(self, code: int = 1012, reason: str = "") -> int:
        """Close every connection in order; gives how many there were."""
        closing = list(self.connections)
        for connection in closing:
            await connection.close(code, reason)
        return len(closing)

    def abort(self) -> int:
        """Cut every connection without a handshake; gives how many there were."""
        cut = list(self.connections)
        for connection in cut:
            connection.abort()
        return len(cut)

    async def connected(self, count: int = 1) -> MockConnection:
        """Wait until so many handshakes were accepted since the start; gives the latest connection."""
        while self.accepted < count or not self.connections:
            self._arrived.clear()
            await self._arrived.wait()
        return self.connections[-1]

    async def down(self) -> None:
        """Stop listening and cut everything."""
        server, self._server = self._server, None
        if server is not None:
            server.close(close_connections=False)
            self.abort()
            await server.wait_closed()

    async def up(self) -> None:
        """Listen again, on the same port, with the same streams."""
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol(name) for name in self._protocols],
            process_request=self._process_request,
            compression=None,
            ping_interval=None,
            close_timeout=self.limits.client_close_seconds_max,
            max_size=self.limits.frame_bytes_max,
            ssl=self._ssl,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        for refusal in self._refusals:
            if refusal.times > 0:
                refusal.times -= 1
                return self._answer(refusal.status, refusal.headers, refusal.body)
        offered = [
            name.strip() for value in request.headers.get_all("Sec-WebSocket-Protocol") for name in value.split(",")
        ]
        try:
            negotiation.choose(offered, self._protocols)
        except VersionError as error:
            problem = {"code": error.code, "detail": error.message, "facts": error.detail}
            return self._answer(426, {"Content-Type": "application/problem+json"}, msgspec.json.encode(problem))
        return None

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        self.refused += 1
        fields = Headers({"Content-Length": str(len(body)), "Connection": "close"} | dict(headers))
        return Response(status, HTTPStatus(status).phrase, fields, body)

    async def _handle(self, websocket: ServerConnection) -> None:
        connection = MockConnection(self, websocket, self.accepted)
        self.accepted += 1
        self.connections.append(connection)
        self._all.append(connection)
        self._arrived.set()
        try:
            if self._script is not None:
                with contextlib.suppress(ConnectionError):
                    await self._script(connection)
            else:
                await connection.serve(self._hello(connection.number))
        finally:
            self.connections.remove(connection)

    def _hello(self, number: int) -> Hello:
        return Hello(
            protocol=self._protocols[0],
            server="mock",
            connection=str(number),
            heartbeat_seconds=self.limits.heartbeat_seconds,
            silence_seconds=self.limits.silence_seconds_max,
            frame_bytes_max=self.limits.frame_bytes_max,
            message_bytes_max=self.limits.message_bytes_max,
            append_messages_max=self.limits.append_messages_max,
        )
