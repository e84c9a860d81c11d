"""One connection of a `MockWebSocketServer`: the server's end of `unbroken.v1`, in the plainest way that is right.

The mock server makes it; scripts speak through it. It never batches, and its faults are those that were injected.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from unbroken.errors import UnbrokenError
from unbroken.messages import SEPARATOR, StreamState
from unbroken.protocol.codec import decode_client, encode_server, messages_frame, messages_prefix
from unbroken.protocol.frames import (
    Acks,
    AppendFrame,
    CancelFrame,
    ClientFrame,
    CreateFrame,
    ErrorFrame,
    Heartbeat,
    Hello,
    LeaseFrame,
    Pause,
    Result,
    Resume,
    ServerFrame,
    StateFrame,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from unbroken.testing import mock_faults as faults
from unbroken.testing.mock_log import MockStream

if TYPE_CHECKING:
    from unbroken.testing.mock_server import MockWebSocketServer

__all__ = ["MockConnection"]

RECEIVED_MAX = 10_000


@dataclass(slots=True, eq=False)
class _Subscription:
    stream: MockStream
    seq: int
    paused: bool = False
    state_due: bool = False
    held: bytes | None = None


class MockConnection:
    """One client's connection; `received` keeps the last frames that came."""

    def __init__(self, server: MockWebSocketServer, websocket: ServerConnection, number: int) -> None:
        self.number = number
        self.received: deque[ClientFrame] = deque(maxlen=RECEIVED_MAX)
        self.silent = False
        self._server = server
        self._websocket = websocket
        self._subscriptions: dict[str, _Subscription] = {}
        self._changed = asyncio.Event()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the handshake."""
        request = self._websocket.request
        return {} if request is None else dict(request.headers.raw_items())

    async def send(self, frame: ServerFrame | bytes | str) -> None:
        """Send a frame, or any bytes as one text; nothing when silent."""
        if self.silent:
            return
        if self._server.latency_seconds:
            await asyncio.sleep(self._server.latency_seconds)
        if isinstance(frame, str):
            frame = frame.encode()
        data = frame if isinstance(frame, bytes) else encode_server(frame, self._server.limits)
        await self._websocket.send(data, text=True)

    async def receive(self) -> ClientFrame:
        """The next frame of the client."""
        frame = decode_client(await self._websocket.recv(decode=False), self._server.limits)
        self.received.append(frame)
        return frame

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """A closing handshake."""
        await self._websocket.close(code, reason)

    def abort(self) -> None:
        """Cut without a handshake."""
        self._websocket.transport.abort()

    def freeze(self) -> None:
        """Half-open: read and write no more."""
        self.silent = True
        self._websocket.transport.pause_reading()

    # --- the protocol ------------------------------------------------------------------------------------------------

    async def serve(self, hello: Hello) -> None:
        """Speak the protocol until the connection ends."""
        try:
            await self.send(hello)
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._deliver()), group.create_task(self._beat())]
                try:
                    while True:
                        await self._on_frame(await self.receive())
                finally:
                    for helper in helpers:
                        helper.cancel()
        except* ConnectionClosed:
            pass
        except* UnbrokenError as group_error:
            error = group_error.exceptions[0]
            with contextlib.suppress(ConnectionClosed):
                await self.close(1009 if getattr(error, "code", "") == "too_large" else 4400, "bad frame")

    def stream_changed(self, name: str, *, state: bool) -> None:
        """A stream has new messages, or another state."""
        subscription = self._subscriptions.get(name)
        if subscription is not None:
            subscription.state_due = subscription.state_due or state
            self._changed.set()

    async def _on_frame(self, frame: ClientFrame) -> None:
        match frame:
            case Heartbeat():
                return
            case Unsubscribe(stream=stream):
                self._subscriptions.pop(stream, None)
            case Pause(stream=stream) | Resume(stream=stream):
                if (subscription := self._subscriptions.get(stream)) is not None:
                    subscription.paused = isinstance(frame, Pause) and not self._server.ignore_pause
                    self._changed.set()
            case Subscribe() | CreateFrame() | AppendFrame() | CancelFrame() | LeaseFrame():
                try:
                    await self._on_request(frame)
                except UnbrokenError as error:
                    await self._send_error(frame.id, frame.stream, error)

    async def _send_error(self, number: int, stream: str, error: UnbrokenError) -> None:
        await self.send(
            ErrorFrame(
                code=error.code,
                message=error.message,
                retryable=error.retryable,
                id=number,
                stream=stream,
                detail=dict(error.detail),
                cure=error.cure,
            )
        )

    async def _on_request(self, frame: Subscribe | CreateFrame | AppendFrame | CancelFrame | LeaseFrame) -> None:
        log = self._server.log
        match frame:
            case Subscribe():
                await self._subscribe(frame)
                return
            case CreateFrame():
                stream, created = log.create(frame)
                await self.send(Result(id=frame.id, stream=stream.view(), created=created))
            case AppendFrame():
                ack = log.append(frame)
                await self.send(Acks(acks=[ack]))
            case CancelFrame():
                stream = log.get(frame.stream)
                stream.cancel_requested = True
                if stream.lease is None and not stream.state.terminal:
                    stream.state = StreamState.CANCELLED
                await self.send(Result(id=frame.id, stream=stream.view()))
            case LeaseFrame():
                stream = log.get(frame.stream)
                stream.lease = frame.producer if frame.seconds else None
                if not stream.state.terminal:
                    stream.state = StreamState.RUNNING if frame.seconds else StreamState.OPEN
                await self.send(Result(id=frame.id, stream=stream.view()))
        # A lease renewed changes nothing that viewers see, but telling them is harmless.
        self._server.changed(frame.stream, state=not isinstance(frame, AppendFrame) or frame.close is not None)

    async def _subscribe(self, frame: Subscribe) -> None:
        stream = self._server.log.get(frame.stream)
        seq = stream.place(frame.after)
        self._subscriptions[frame.stream] = _Subscription(stream, seq, state_due=stream.state.terminal)
        cursor, head = f"{stream.epoch}:{seq}", stream.heads[seq].hex()
        await self.send(
            Subscribed(id=frame.id, cursor=cursor, hash=head, stream=stream.view(), salts=stream.salts.encoded)
        )
        self._changed.set()

    async def _deliver(self) -> None:
        """Send what subscriptions have not got, in order for each."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for name, subscription in list(self._subscriptions.items()):
                while self._subscriptions.get(name) is subscription and not subscription.paused:
                    if not await self._advance(name, subscription):
                        break
                    await asyncio.sleep(0)  # so that a `pause` is heard between two frames

    async def _advance(self, name: str, subscription: _Subscription) -> bool:
        """One more frame for this subscription; False when it has everything."""
        stream = subscription.stream
        if subscription.seq < stream.head:
            first = subscription.seq + 1
            batch = stream.encoded[subscription.seq : subscription.seq + self._server.messages_per_frame]
            subscription.seq += len(batch)
            head = stream.heads[subscription.seq].hex()
            prefix = messages_prefix(stream.name, stream.epoch)
            await self._send_messages(subscription, messages_frame(prefix, first, head, SEPARATOR.join(batch)))
            self._server.delivered += len(batch)
            return True
        if subscription.held is not None:
            held, subscription.held = subscription.held, None
            await self.send(held)
        if subscription.state_due:
            subscription.state_due = False
            if stream.state.terminal:
                del self._subscriptions[name]
            await self.send(StateFrame(stream=stream.view()))
        return False

    async def _send_messages(self, subscription: _Subscription, data: bytes) -> None:
        injected = self._server.due()
        if injected is None:
            await self.send(data)
            if subscription.held is not None:
                held, subscription.held = subscription.held, None
                await self.send(held)
            return
        injected.bite()
        await self._misbehave(injected.fault, subscription, data)

    async def _misbehave(self, fault: faults.MockFault, subscription: _Subscription, data: bytes) -> None:
        """Do what was injected instead of sending `data`; one case for each fault."""
        match fault:
            case faults.Disconnect(code, reason):
                await self.close(code, reason)
            case faults.Abort():
                self.abort()
            case faults.Silence():
                self.silent = True
            case faults.Freeze():
                self.freeze()
            case faults.Malformed(text):
                await self.send(text)
            case faults.Oversized(size):
                await self.send(b" " * size)
            case faults.Duplicate():
                await self.send(data)
                await self.send(data)
            case faults.Reorder():
                subscription.held = data
            case faults.Skip():
                return

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._server.limits.heartbeat_seconds)
            await self.send(Heartbeat())
