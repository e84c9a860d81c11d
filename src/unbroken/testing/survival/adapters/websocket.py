"""The adapter of a plain WebSocket log: one address, JSON messages, a number that counts.

The survival kit uses it by the name `websocket`. What a server must do for it is in docs/howto/verify-server.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar

import msgspec
from websockets.exceptions import WebSocketException

from unbroken.testing.survival.adapter import Adapter, Capability, Complete, Delivery, Ended, LostError, RefusedError
from unbroken.testing.survival.adapters.http import decoded
from unbroken.testing.survival.adapters.sockets import open_socket

__all__ = ["WebSocketAdapter"]


class _Answer(msgspec.Struct):
    type: str
    payload: str = ""
    cursor: str = ""
    position: int = 0
    state: str = ""
    error: str = ""


class WebSocketAdapter(Adapter):
    """Each request and each subscription is a connection of its own."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    async def create(self, stream: str) -> None:
        await self._ask(type="create", stream=stream)

    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        answer = await self._ask(type="append", stream=stream, payload=payload, producer=producer, number=number)
        return answer.position

    async def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        async for answer in self._answers(type="subscribe", stream=stream, cursor=cursor):
            if answer.type == "message":
                yield Delivery(answer.payload, answer.cursor, answer.position)
            elif answer.type == "end":
                yield Ended(answer.state)

    async def read_all(self, stream: str) -> Complete:
        found: list[Delivery] = []
        async for answer in self._answers(type="read", stream=stream):
            if answer.type == "message":
                found.append(Delivery(answer.payload, answer.cursor, answer.position))
            elif answer.type == "ok":
                return Complete(tuple(found), answer.state)
        raise LostError("no answer")

    async def end(self, stream: str) -> None:
        await self._ask(type="end", stream=stream)

    async def delete(self, stream: str) -> None:
        await self._ask(type="delete", stream=stream)

    async def _ask(self, **request: str | int) -> _Answer:
        async for answer in self._answers(**request):
            return answer
        raise LostError("no answer")

    async def _answers(self, **request: str | int) -> AsyncGenerator[_Answer, None]:
        """What comes for one request over a connection of its own."""
        try:
            async with await open_socket(self) as socket:
                await socket.send(msgspec.json.encode(request), text=True)
                async for data in socket:
                    answer = decoded(data, _Answer)
                    if answer.type == "refused":
                        raise RefusedError(answer.error)
                    yield answer
        except (OSError, EOFError, WebSocketException) as error:
            raise LostError(f"{type(error).__name__}: {error}") from error
