"""The appends of one connection: gathered within a read, submitted to the log, and answered together.

A connection adds what its peer sends, submits at the end of each read, and takes what was decided once in a turn of the
event loop. Nothing here is ever delayed for the sake of a larger commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from unbroken.errors import UnbrokenError
from unbroken.identity import Principal
from unbroken.messages import StreamInfo
from unbroken.protocol.frames import Ack, AppendFrame
from unbroken.requests import AppendOptions
from unbroken.server.specs import check_written, close_of, producer_of
from unbroken.store.base import Append, Appended, WriteResult

if TYPE_CHECKING:
    from unbroken.limits import Limits
    from unbroken.quotas import Headroom
    from unbroken.server.services import Services

__all__ = ["AppendGroup", "Appends"]


class AppendGroup:
    """Appends that became one operation on `stream`: of each its number and how many of the messages are its own.

    `now_ms` is the time of those that are gathered, `headroom` what bounds them, None for who is not charged.
    """

    __slots__ = ("bytes_max", "headroom", "messages", "messages_max", "now_ms", "places", "size_bytes", "stream")

    def __init__(self, stream: StreamInfo, limits: Limits, headroom: Headroom | None = None, now_ms: int = 0) -> None:
        self.stream = stream
        self.now_ms = now_ms
        self.headroom = headroom
        self.messages_max = limits.append_messages_max
        self.bytes_max = limits.compact_chunk_bytes
        """None is added any more when it has so many."""
        if headroom is not None:
            self.messages_max = int(min(self.messages_max, headroom.messages))
            self.bytes_max = int(min(self.bytes_max, headroom.size_bytes))
        self.places: list[tuple[int, int]] = []
        self.messages: list[bytes] = []
        self.size_bytes = 0

    def acks(self, outcome: Appended) -> list[Ack]:
        """What to tell of each when all are durable."""
        if len(self.places) == 1:
            number = self.places[0][0]
            return [Ack(id=number, first=outcome.first, last=outcome.last, duplicate=outcome.duplicate)]
        acks: list[Ack] = []
        last = outcome.first - 1
        for number, count in self.places:
            acks.append(Ack(id=number, first=last + 1, last=last + count))
            last += count
        assert last == outcome.last, "a commit takes every message of an operation"
        return acks


class Appends:
    """Appends of one connection that are not answered yet; `flying` counts them.

    `on_decided` is called in a turn of the event loop of its own whenever something was decided.
    """

    __slots__ = ("_decided", "_gathered", "_limits", "_loop", "_on_decided", "_services", "_streams", "flying")

    def __init__(self, services: Services, on_decided: Callable[[], None]) -> None:
        self._services = services
        self._streams = services.streams
        self._limits = services.limits
        self._on_decided = on_decided
        self._loop = asyncio.get_running_loop()
        self._gathered: AppendGroup | None = None
        self._decided: list[tuple[AppendGroup, WriteResult | UnbrokenError]] = []
        self.flying = 0

    def add(self, frame: AppendFrame, stream: StreamInfo, *, by: Principal, by_name: bool) -> None:
        """Submit an append, or gather it with others of this read when nothing but its messages is asked for.

        `by_name`: to whichever stream has the name when it takes effect; else to `stream` itself alone.
        Raises at once what `Streams.append` does; then it was not taken.
        """
        if not by_name or frame.producer is not None or frame.expected_head is not None or frame.close is not None:
            self._submit_alone(frame, stream, by, by_name=by_name)
            return
        streams, limits, messages = self._streams, self._limits, frame.messages
        group = self._gathered
        if (  # appends of one read to one stream become one operation, as long as they are few and small
            group is None
            or group.stream is not stream
            or len(group.messages) + len(messages) > limits.append_messages_max
            or len(group.messages) >= group.messages_max
            or group.size_bytes >= group.bytes_max
        ):
            self.submit()
            check_written(stream)
            streams.log.check_room()
            group = AppendGroup(stream, limits, streams.headroom(by), streams.clock.now_ms())
        encoded = streams.encode(messages, group.now_ms)
        self._gathered = group
        group.places.append((frame.id, len(encoded)))
        group.messages += encoded
        group.size_bytes += len(encoded[0]) if len(encoded) == 1 else sum(map(len, encoded))
        self.flying += 1

    def _submit_alone(self, frame: AppendFrame, stream: StreamInfo, by: Principal, *, by_name: bool) -> None:
        self.submit()
        check_written(stream)
        services, producer = self._services, frame.producer
        options = AppendOptions(
            producer=None if producer is None else producer_of(producer),
            expected_head=frame.expected_head,
            close=None if frame.close is None else close_of(frame.close, services.limits),
            by_name=by_name,
            by=by,
        )
        group = AppendGroup(stream, services.limits)
        group.places.append((frame.id, len(frame.messages)))
        services.streams.append_to(partial(self._decide, group), stream, frame.messages, options)
        self.flying += 1

    def submit(self) -> None:
        """Submit what was gathered; there is room, because it was looked for in this same step of the event loop."""
        group, self._gathered = self._gathered, None
        if group is not None:
            decided = partial(self._decide, group)
            headroom = group.headroom
            charge = None if headroom is None else headroom.take(len(group.messages), group.size_bytes)
            op = Append(
                stream=group.stream.id,
                epoch=group.stream.epoch,
                messages=tuple(group.messages),
                now_ms=group.now_ms,
                name_of=group.stream,
            )
            self._services.streams.append_encoded(decided, op, charge)

    def _decide(self, group: AppendGroup, outcome: WriteResult | UnbrokenError) -> None:
        """The appends of `group` are durable, or refused."""
        if not self._decided:
            self._loop.call_soon(self._on_decided)
        self._decided.append((group, outcome))

    def take_decided(self) -> list[tuple[AppendGroup, WriteResult | UnbrokenError]]:
        """What was decided since the last time, in order."""
        decided, self._decided = self._decided, []
        self.flying -= sum(len(group.places) for group, _ in decided)
        return decided
