"""The adapter of Unbroken: appends over HTTP, watching over a bare WebSocket.

The survival kit uses it by the name `unbroken`. It does not use our client, which would mend what the server does wrong.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar
from urllib.parse import quote

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamState
from unbroken.testing.survival.adapter import Capability, Complete, Delivery, Ended, LostError, RefusedError
from unbroken.testing.survival.adapters.http import HttpAdapter, decoded
from unbroken.testing.survival.adapters.sockets import open_socket

__all__ = ["UnbrokenAdapter"]

JSON = {"Content-Type": "application/json"}
PROTOCOL = "unbroken.v1"


class _Text(msgspec.Struct):
    text: str = ""


class _View(msgspec.Struct, frozen=True):
    state: str
    epoch: int = 0


class _Frame(msgspec.Struct):
    type: str
    stream: str | _View = ""
    epoch: int = 0
    first: int = 0
    messages: list[_Text] = []
    code: str = ""
    retryable: bool = False


class _Page(msgspec.Struct):
    stream: _View
    first: int
    cursor: str
    messages: list[_Text] = []
    up_to_date: bool = False


class _Appended(msgspec.Struct):
    first: int


class UnbrokenAdapter(HttpAdapter):
    """Positions are seqs, cursors are `epoch:seq`."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    async def create(self, stream: str) -> None:
        await self.request("PUT", f"/v1/streams/{quote(stream)}", content=b"{}", headers=JSON)

    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        body = {"messages": [{"text": payload}], "producer": {"id": producer, "epoch": 0, "seq": number}}
        path = f"/v1/messages/{quote(stream)}"
        response = await self.request("POST", path, content=msgspec.json.encode(body), headers=JSON)
        return decoded(response.content, _Appended).first

    async def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        try:
            async with await self._connected() as socket:
                frame = {"type": "subscribe", "id": 1, "stream": stream, "after": cursor or "start"}
                await socket.send(msgspec.json.encode(frame), text=True)
                async for data in socket:
                    for item in await self._taken(socket, data):
                        yield item
        except (OSError, EOFError, WebSocketException) as error:
            raise LostError(f"{type(error).__name__}: {error}") from error

    async def _connected(self) -> ClientConnection:
        return await open_socket(self, "/v1/ws", subprotocol=PROTOCOL, bytes_max=DEFAULT_LIMITS.frame_bytes_max)

    @staticmethod
    async def _taken(socket: ClientConnection, data: str | bytes) -> list[Delivery | Ended]:
        """What one frame brings."""
        frame = decoded(data, _Frame)
        match frame.type, frame.stream:
            case "heartbeat", _:
                await socket.send('{"type":"heartbeat"}')
            case "messages", str():
                return [
                    Delivery(message.text, f"{frame.epoch}:{seq}", seq)
                    for seq, message in enumerate(frame.messages, frame.first)
                ]
            case "state", _View(state) if StreamState(state).terminal:
                return [Ended(state)]
            case "error", _:
                kind = LostError if frame.retryable else RefusedError
                raise kind(frame.code)
            case _:
                return []
        return []

    async def read_all(self, stream: str) -> Complete:
        found: list[Delivery] = []
        cursor = "start"
        while True:
            response = await self.request("GET", f"/v1/messages/{quote(stream)}?after={quote(cursor)}")
            page = decoded(response.content, _Page)
            found += [
                Delivery(message.text, f"{page.stream.epoch}:{seq}", seq)
                for seq, message in enumerate(page.messages, page.first)
            ]
            cursor = page.cursor
            if page.up_to_date:
                state = page.stream.state
                return Complete(tuple(found), state if StreamState(state).terminal else "")

    async def end(self, stream: str) -> None:
        await self.request("POST", f"/v1/close/{quote(stream)}", content=b"{}", headers=JSON)

    async def delete(self, stream: str) -> None:
        await self.request("DELETE", f"/v1/streams/{quote(stream)}")
