"""`Follow`: the messages of one stream, one after the other, over any number of connections.

`Client.follow` makes it; its `Link` feeds it. It never asks for anything itself but to pause and to go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from unbroken.client.link import Link
from unbroken.client.values import Received
from unbroken.errors import EpochMismatchError, TrimmedError, UnbrokenError
from unbroken.limits import Limits
from unbroken.messages import Cursor, Epoch, Seq
from unbroken.protocol import client_outputs as out
from unbroken.protocol.client_chain import Verify
from unbroken.protocol.client_outputs import Output
from unbroken.protocol.frames import StreamView

__all__ = ["Follow"]


class Follow:
    """An asynchronous iterator over a stream's messages.

    Order: seq by seq without a hole or a double, whatever happens to the connection. It ends (`StopAsyncIteration`)
    behind the last message of a stream in a terminal state, which `state` then shows. It raises `EpochMismatchError`
    when the name now means another stream, `TrimmedError` when messages it should have read are gone,
    `VerificationError` when the hash chain does not hold, and what the server refuses the subscription with; `cursor`
    then says from where to follow again.

    At most `limits.client_follow_messages_max` messages or `limits.client_pending_bytes_max` bytes wait here (twice
    that for a server that is slow to pause): a slow consumer pauses its own subscription and nobody else's.
    Cancelling a wait for the next message loses none. Leave it with `aclose` or as a context manager; leaving is not
    cancelling the stream.
    """

    def __init__(self, link: Link, stream: str, after: str, *, verify: Verify, limits: Limits) -> None:
        self.stream = stream
        self.state: StreamView | None = None
        self.cursor: Cursor | None = None
        self.head: tuple[int, str] | None = None
        """The latest message handed out at which the server has said the chain: its seq, and the chain's value (hex)."""
        self._link = link
        self._limits = limits
        self._batches: deque[out.MessagesReceived] = deque()
        self._position = 0
        self._messages = 0
        self._bytes = 0
        self._paused = False
        self._over = False
        self._error: UnbrokenError | None = None
        self._changed = asyncio.Event()
        self._stands = asyncio.Event()
        link.follow(stream, after, self._on_output, verify=verify)

    @property
    def waiting(self) -> int:
        """How many messages wait here."""
        return self._messages

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        await self._filled()
        batch = self._batches[0]
        seq = batch.first + self._position
        message = batch.messages[self._position]
        self._position += 1
        self._messages -= 1
        if self._position == len(batch.messages):
            self._batches.popleft()
            self.head = (seq, batch.hash)
            self._position = 0
            self._bytes -= batch.encoded_bytes
            self._go_on()
        self.cursor = Cursor(Epoch(batch.epoch), Seq(seq))
        return Received(seq, batch.epoch, message)

    async def batch(self) -> list[Received]:
        """Everything that waits here, at least one message; ends and raises as iterating does."""
        await self._filled()
        messages = [
            Received(batch.first + place, batch.epoch, message)
            for number, batch in enumerate(self._batches)
            for place, message in enumerate(batch.messages)
            if number > 0 or place >= self._position
        ]
        self.cursor = messages[-1].cursor
        self.head = (self.cursor.seq, self._batches[-1].hash)
        self._batches.clear()
        self._position = self._messages = self._bytes = 0
        self._go_on()
        return messages

    async def ready(self) -> StreamView:
        """Wait until the subscription stands for the first time; gives the stream as it then was."""
        await self._stands.wait()
        if self._error is not None and self.state is None:
            raise self._error
        assert self.state is not None
        return self.state

    async def aclose(self) -> None:
        """Leave: no more messages, also none that wait here."""
        self._batches.clear()
        self._position = self._messages = self._bytes = 0
        self._finish(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _filled(self) -> None:
        """Wait until there is a message, or end."""
        while not self._batches:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()

    def _on_output(self, output: Output) -> None:
        match output:
            case out.MessagesReceived():
                self._take(output)
            case out.SubscriptionStands(_, cursor, view):
                self.state = view
                self.cursor = cursor if self.cursor is None else self.cursor
                self._stands.set()
            case out.StateChanged(view):
                self.state = view
            case out.Ended(view):
                self.state = view
                self._finish(None)
            case out.EpochChanged(stream, epoch):
                self._finish(EpochMismatchError(f"{stream} is another stream now", stream=stream, epoch=epoch))
            case out.Trimmed(stream, missing, first) if missing:
                text = f"{missing} messages of {stream} before {first} were trimmed"
                self._finish(TrimmedError(text, stream=stream, first=first, missing=missing))
            case out.SubscriptionFailed(_, error):
                self._finish(error)
            case _:
                return
        self._changed.set()

    def _take(self, output: out.MessagesReceived) -> None:
        self._batches.append(output)
        self._messages += len(output.messages)
        self._bytes += output.encoded_bytes
        full = (
            self._messages >= self._limits.client_follow_messages_max
            or self._bytes >= self._limits.client_pending_bytes_max
        )
        if full and not self._paused and not self._over:
            self._paused = True
            self._link.pause(self.stream)

    def _go_on(self) -> None:
        emptied = (
            self._messages <= self._limits.client_follow_messages_max // 2
            and self._bytes <= self._limits.client_pending_bytes_max // 2
        )
        if self._paused and emptied and not self._over:
            self._paused = False
            self._link.resume(self.stream)

    def _finish(self, error: UnbrokenError | None) -> None:
        if self._over:
            return
        self._over = True
        self._error = error
        self._stands.set()
        self._changed.set()
        if self._link.watched_by(self.stream, self._on_output):
            self._link.unfollow(self.stream)
