"""Single appends without a producer of the application's own, made exactly-once all the same.

`Client.append` and `Client.close` call it. Each append that is on its way has a producer identity of its own, taken
from a small set for each stream, so that none waits for another and none is repeated.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from random import Random

import msgspec

from unbroken.client.link import Link
from unbroken.client.values import Appended, append_bytes_max, encoded_bytes
from unbroken.errors import TooLargeError
from unbroken.limits import Limits
from unbroken.protocol.frames import AppendFrame, ProducerSpec

__all__ = ["Appends"]

STREAMS_MAX = 1_000
"""Streams whose identities are kept; the one unused for longest is forgotten, and its next append has a new
identity."""


@dataclass(slots=True)
class _Identity:
    id: str
    epoch: int = 0
    seq: int = 0


class Appends:
    """Appends that each wait for their own answer.

    Bounded: `limits.client_window_appends_max` appends for each stream are on their way, the others wait.
    """

    def __init__(self, link: Link, limits: Limits, random: Random) -> None:
        self._link = link
        self._limits = limits
        self._prefix = f"client-{random.getrandbits(64):016x}"
        self._made = 0
        self._streams: OrderedDict[str, asyncio.LifoQueue[_Identity]] = OrderedDict()

    async def append(self, frame: AppendFrame) -> Appended:
        """Send until answered; a frame with a producer of its own goes as it is."""
        size = sum([encoded_bytes(message, self._limits) for message in frame.messages])
        most = append_bytes_max(self._limits)
        if size > most:
            raise TooLargeError(f"the append has {size} bytes, the limit is {most}", limit="append_bytes_max")
        if frame.producer is not None:
            return await self._request(frame)
        free = self._identities(frame.stream)
        identity = await free.get()
        try:
            appended = await self._request(self._signed(frame, identity))
        except BaseException:
            _renew(identity)
            raise
        else:
            identity.seq += 1
            return appended
        finally:
            free.put_nowait(identity)

    async def _request(self, frame: AppendFrame) -> Appended:
        outcome = await self._link.request(frame)
        assert isinstance(outcome, Appended)
        return outcome

    @staticmethod
    def _signed(frame: AppendFrame, identity: _Identity) -> AppendFrame:
        spec = ProducerSpec(id=identity.id, epoch=identity.epoch, seq=identity.seq)
        return msgspec.structs.replace(frame, producer=spec)

    def _identities(self, stream: str) -> asyncio.LifoQueue[_Identity]:
        """The stream's free identities: the one used last comes first, so that calls in a row share one."""
        free = self._streams.get(stream)
        if free is None:
            free = self._streams[stream] = asyncio.LifoQueue()
            for _ in range(self._limits.client_window_appends_max):
                self._made += 1
                free.put_nowait(_Identity(f"{self._prefix}-{self._made}"))
        self._streams.move_to_end(stream)
        if len(self._streams) > STREAMS_MAX:
            self._streams.popitem(last=False)
        return free


def _renew(identity: _Identity) -> None:
    """Never use the last number again: a new epoch begins without it.

    An error alone does not say that nothing was stored: the append may have become durable before the connection that
    should have brought its answer was lost. Its number with other messages would then be acknowledged as a duplicate.
    """
    identity.epoch += 1
    identity.seq = 0
