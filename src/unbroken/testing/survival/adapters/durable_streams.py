"""The adapter of any server that speaks Durable Streams: JSON mode, producers with numbers, live reading over SSE.

The survival kit uses it by the name `durable-streams`. It knows only what the public protocol says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar
from urllib.parse import quote

import msgspec

from unbroken.testing.survival.adapter import Capability, Complete, Delivery, Ended, LostError
from unbroken.testing.survival.adapters.http import HttpAdapter, decoded

__all__ = ["DurableStreamsAdapter"]

JSON = {"Content-Type": "application/json"}
START = "-1"
ENDED = "completed"
"""The protocol has one way to end."""


class _Control(msgspec.Struct, rename="camel"):
    stream_next_offset: str
    stream_closed: bool = False


class DurableStreamsAdapter(HttpAdapter):
    """Offsets are cursors, positions are not told.

    A `data` event counts only with the `control` event behind it: before that no reader can know where it is.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    async def create(self, stream: str) -> None:
        await self.request("PUT", _path(stream), headers=JSON)

    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        numbers = {"Producer-Id": producer, "Producer-Epoch": "0", "Producer-Seq": str(number)}
        await self.request("POST", _path(stream), content=msgspec.json.encode(payload), headers=JSON | numbers)
        return 0

    async def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        waiting: list[str] = []
        async for event in self.events(f"{_path(stream)}?offset={quote(cursor or START)}&live=sse"):
            if event.event == "data":
                waiting += decoded(event.data, list[str])
            elif event.event == "control":
                control = decoded(event.data, _Control)
                for delivery in _deliveries(waiting, control.stream_next_offset):
                    yield delivery
                waiting = []
                if control.stream_closed:
                    yield Ended(ENDED)

    async def read_all(self, stream: str) -> Complete:
        found: list[Delivery] = []
        offset = START
        while True:
            response = await self.request("GET", f"{_path(stream)}?offset={quote(offset)}")
            last, offset = offset, response.headers.get("Stream-Next-Offset", "")
            found += _deliveries(decoded(response.content, list[str]), offset)
            if response.headers.get("Stream-Up-To-Date") == "true":
                closed = response.headers.get("Stream-Closed") == "true"
                return Complete(tuple(found), ENDED if closed else "")
            if not offset or offset == last:
                raise LostError("a read that does not go on")

    async def end(self, stream: str) -> None:
        await self.request("POST", _path(stream), headers={"Stream-Closed": "true"})

    async def delete(self, stream: str) -> None:
        await self.request("DELETE", _path(stream))


def _path(stream: str) -> str:
    return f"/v1/stream/{quote(stream)}"


def _deliveries(payloads: list[str], offset: str) -> list[Delivery]:
    """Only behind the last of a batch is there an offset to go on from."""
    last = len(payloads) - 1
    return [Delivery(payload, offset if number == last else "") for number, payload in enumerate(payloads)]
