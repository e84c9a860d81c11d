"""What a server holds of a stream, looked at by the client library in this process: a command to look costs a start each.

Tests whose subject is another than `tail`, `show` and `verify` look this way. It reads over sockets, like anybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from unbroken import Client, Received
from unbroken.errors import NotFoundError
from unbroken.messages import payload_bytes
from unbroken.protocol.frames import StreamView

__all__ = ["Kept", "kept", "until"]

SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A stream as a reader finds it: all of its messages, and how it stands."""

    messages: list[Received]
    view: StreamView

    @property
    def reason(self) -> object:
        return msgspec.json.decode(self.view.reason)

    @property
    def metadata(self) -> dict[str, object]:
        return msgspec.json.decode(self.view.metadata, type=dict[str, object])

    def payload(self, *kinds: str) -> bytes:
        """The payloads of these kinds, of all without any, joined."""
        chosen = (one.message for one in self.messages if not kinds or one.kind in kinds)
        return b"".join(map(payload_bytes, chosen))


async def kept(url: str, name: str, *, token: str | None = None) -> Kept:
    """All of a stream, read to its head; raises `NotFoundError`."""
    async with Client(url, token=token) as client:
        found = await client.read(name)
        messages = found.received()
        while not found.up_to_date:
            found = await client.read(name, found.cursor)
            messages += found.received()
        assert (await client.verify(name)).ok, "its chain holds"
        return Kept(messages, await client.state(name))


async def until(url: str, name: str, condition: Callable[[StreamView], bool]) -> StreamView:
    """Look at a stream, which may not exist yet, until `condition` holds."""
    async with Client(url) as client, asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                view = await client.state(name)
            except NotFoundError:
                pass
            else:
                if condition(view):
                    return view
            await asyncio.sleep(0.02)
