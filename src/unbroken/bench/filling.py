"""Databases of a given number of messages, with as many streams, sessions, leases, expiries and runs as belong to it.

`unbroken bench --queries` asks its queries of them. Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, StreamInfo, encode_message
from unbroken.store.base import (
    Append,
    Created,
    CreateStream,
    Rejected,
    StreamingMessageRepository,
    WriteOp,
    WriteResult,
)

__all__ = ["OWNER", "World", "fill"]

OWNER: Final = Principal()
SMALL_MESSAGES: Final = 10
"""How many messages each of the many streams has; all of them together have half of the messages, the long one the rest."""
LONG_MESSAGES: Final = 50
"""How many messages the long one gets in one append."""
STREAMS_A_SESSION: Final = 10
TEXT_CHARACTERS: Final = 256
OPS_A_WRITE: Final = 100
NOW_MS: Final = 1_764_000_000_000
FAR_MS: Final = NOW_MS + 10**12
RUN: Final = '{"type":"task","name":"bench"}'


@dataclass(frozen=True, slots=True)
class World:
    """One filled database: its long stream, its many streams and its sessions."""

    messages: int
    long: StreamInfo
    small: tuple[StreamInfo, ...]
    sessions: int

    @property
    def now_ms(self) -> int:
        return NOW_MS


async def fill(store: StreamingMessageRepository, messages: int) -> World:
    """Half of `messages` in one stream, half in streams of 10; of ten streams one has a lease, one expires, one is a run.

    So 10,000 messages have 500 streams in 50 sessions, and every listing has more than a page.
    """
    half = messages // 2
    message = encode_message(
        NewMessage(text="x" * TEXT_CHARACTERS), time_ms=NOW_MS, producer=None, limits=DEFAULT_LIMITS
    )
    long = _stream((await store.write([CreateStream(principal=OWNER, name="long", now_ms=NOW_MS, run=RUN)]))[0])
    append = Append(stream=long.id, epoch=long.epoch, messages=(message,) * LONG_MESSAGES, now_ms=NOW_MS)
    await _written(store, [append] * (half // LONG_MESSAGES))
    count = half // SMALL_MESSAGES
    made = await _written(store, [_small(number, (message,) * SMALL_MESSAGES) for number in range(count)])
    small = tuple(_stream(result) for result in made)
    return World(messages, long, small, count // STREAMS_A_SESSION)


def _small(number: int, messages: tuple[bytes, ...]) -> CreateStream:
    """One of the many streams."""
    return CreateStream(
        principal=OWNER,
        name=f"small/{number:06d}",
        now_ms=NOW_MS,
        session=f"session-{number // STREAMS_A_SESSION:06d}",
        messages=messages,
        lease_producer="producer" if number % 10 == 1 else None,
        lease_epoch=1,
        lease_until_ms=FAR_MS if number % 10 == 1 else None,
        expires_ms=FAR_MS if number % 10 == 2 else None,
        run=RUN if number % 10 == 3 else None,
    )


async def _written(store: StreamingMessageRepository, ops: Sequence[WriteOp]) -> list[WriteResult]:
    found: list[WriteResult] = []
    for start in range(0, len(ops), OPS_A_WRITE):
        results = await store.write(ops[start : start + OPS_A_WRITE])
        refused = [result.error for result in results if isinstance(result, Rejected)]
        if refused:
            raise refused[0]
        found += results
    return found


def _stream(result: WriteResult) -> StreamInfo:
    assert isinstance(result, Created), result
    return result.stream
